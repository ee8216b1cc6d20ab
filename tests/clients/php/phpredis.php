<?php
// The phpredis extension, RESP2. Usage: phpredis.php PORT. See work.php.

require __DIR__ . '/work.php';

final class PhpRedis implements Library
{
    private Redis $redis;
    private string $name;

    public function __construct(private int $port)
    {
    }

    public function connect(string $name): void
    {
        $this->redis = new Redis();
        $this->redis->connect('localhost', $this->port);
        $this->redis->setOption(Redis::OPT_READ_TIMEOUT, -1);
        $this->name = $name;
        $this->redis->client('SETNAME', $name);
    }

    // It connects again by itself where it finds its connection closed, and forgets the name.
    public function hasReconnected(): bool
    {
        if ($this->redis->client('GETNAME') === $this->name) {
            return false;
        }
        $this->redis->client('SETNAME', $this->name);
        return true;
    }

    public function set(string $key, string $value): void
    {
        $this->redis->set($key, $value) ?: $this->fail();
    }

    public function get(string $key): ?string
    {
        return $this->text($this->redis->get($key));
    }

    public function pipeline(string $first, string $second, string $value): ?string
    {
        $answers = $this->redis->multi(Redis::PIPELINE)->set($first, $value)->set($second, $value)->get($first)->exec();
        ($answers && $answers[0] && $answers[1]) || $this->fail();
        return $this->text($answers[2]);
    }

    public function transaction(string $first, string $second, string $value): void
    {
        $answers = $this->redis->multi()->set($first, $value)->set($second, $value)->exec();
        ($answers && $answers[0] && $answers[1]) || $this->fail();
    }

    public function script(string $key, string $value): ?string
    {
        $answer = $this->redis->eval(SCRIPT, [$key, $value], 1);
        return $answer === false ? $this->fail() : $answer;
    }

    public function publish(string $channel, string $message): void
    {
        $this->redis->publish($channel, $message);
    }

    public function push(string $list, string $value): void
    {
        $this->redis->lPush($list, $value) ?: $this->fail();
    }

    public function pop(array $lists): ?string
    {
        return $this->redis->blPop($lists, BLOCKING_SECONDS)[1] ?? null;
    }

    public function subscribe(string $channel, callable $heard): void
    {
        $this->redis->subscribe([$channel], fn ($redis, $channel, $message) => $heard($message));
    }

    public function many(array $keys): array
    {
        return $this->redis->mGet($keys);
    }

    public function version(): string
    {
        return $this->redis->info('server')['redis_version'];
    }

    private function text(string|false $value): ?string
    {
        return $value === false ? null : $value;
    }

    // Errors that the server answered are no exceptions here.
    private function fail(): never
    {
        throw new RuntimeException($this->redis->getLastError() ?? 'no answer');
    }
}

run('phpredis ' . phpversion('redis'), new PhpRedis((int) $argv[1]));
