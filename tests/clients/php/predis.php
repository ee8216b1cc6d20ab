<?php
// Predis, RESP2. Usage: predis.php PORT. See work.php.

require 'Predis/Autoloader.php';
require __DIR__ . '/work.php';

Predis\Autoloader::register();

final class Predis1 implements Library
{
    private Predis\Client $client;

    public function __construct(private int $port)
    {
    }

    public function connect(string $name): void
    {
        $this->client = new Predis\Client(
            ['host' => 'localhost', 'port' => $this->port, 'read_write_timeout' => -1],
        );
        $this->client->client('SETNAME', $name);
    }

    // It throws where its connection is lost.
    public function hasReconnected(): bool
    {
        return false;
    }

    public function set(string $key, string $value): void
    {
        $this->client->set($key, $value);
    }

    public function get(string $key): ?string
    {
        return $this->client->get($key);
    }

    public function pipeline(string $first, string $second, string $value): ?string
    {
        return $this->client->pipeline(
            fn ($pipe) => $pipe->set($first, $value)->set($second, $value)->get($first),
        )[2];
    }

    public function transaction(string $first, string $second, string $value): void
    {
        $this->client->transaction(fn ($all) => $all->set($first, $value)->set($second, $value));
    }

    public function script(string $key, string $value): ?string
    {
        return $this->client->eval(SCRIPT, 1, $key, $value);
    }

    public function publish(string $channel, string $message): void
    {
        $this->client->publish($channel, $message);
    }

    public function push(string $list, string $value): void
    {
        $this->client->lpush($list, [$value]);
    }

    public function pop(array $lists): ?string
    {
        return $this->client->blpop($lists, BLOCKING_SECONDS)[1] ?? null;
    }

    public function subscribe(string $channel, callable $heard): void
    {
        foreach ($this->client->pubSubLoop(['subscribe' => $channel]) as $message) {
            if ($message->kind === 'message') {
                $heard($message->payload);
            }
        }
    }

    public function many(array $keys): array
    {
        return $this->client->mget($keys);
    }

    public function version(): string
    {
        return $this->client->info('server')['Server']['redis_version'];
    }
}

run('predis ' . Predis\Client::VERSION, new Predis1((int) $argv[1]));
