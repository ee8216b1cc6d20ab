<?php
// What the programs of the PHP libraries share: the work, when to end, what was seen, and the report of it; see ../work.py. PHP has
// no threads: the subscriber and the blocked client are processes of their own, which tell what they saw when they end.

const PAUSE_US = 20_000;
const LARGE = 1024 * 1024;
const LARGE_EVERY = 25;
const BLOCKING_SECONDS = 5;
const RECOVERY_SECONDS = 20;
const KEYS_AT_ONCE = 200;
const SCRIPT = "redis.call('SET', KEYS[1], ARGV[1]) return ARGV[1]";
const LAST = 'last';

// A library as the work needs it. Each call may throw.
interface Library
{
    public function connect(string $name): void;
    // True when the library has connected again by itself since the last call.
    public function hasReconnected(): bool;
    public function set(string $key, string $value): void;
    public function get(string $key): ?string;
    public function pipeline(string $first, string $second, string $value): ?string;
    public function transaction(string $first, string $second, string $value): void;
    public function script(string $key, string $value): ?string;
    public function publish(string $channel, string $message): void;
    public function push(string $list, string $value): void;
    public function pop(array $lists): ?string;
    // Gives each message to $heard, which ends the process with the last.
    public function subscribe(string $channel, callable $heard): void;
    public function many(array $keys): array;
    public function version(): string;
}

final class Seen
{
    public array $errors = [];
    public int $reconnects = 0;
    public int $count = 0;
    public bool $recovered = false;

    public function error(Throwable $error): void
    {
        $kind = substr(get_class($error) . ': ' . $error->getMessage(), 0, 160);
        $this->errors[$kind] = ($this->errors[$kind] ?? 0) + 1;
    }

    // Connects again, as an application does that has lost its connection.
    public function reconnect(Library $library, string $name): void
    {
        while (true) {
            usleep(PAUSE_US);
            try {
                $library->connect($name);
                $this->reconnects += 1;
                return;
            } catch (Throwable $error) {
                $this->error($error);
            }
        }
    }
}

// A process of its own that works until it has seen the last message; what it saw can be read from what this returns.
function beside(Library $library, string $name, callable $work): array
{
    [$ours, $its] = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
    $process = pcntl_fork();
    if ($process > 0) {
        fclose($its);
        return [$process, $ours];
    }
    $seen = new Seen();
    $library->connect($name);
    while (true) {
        try {
            $work($library, function (string $message) use ($seen, $its): void {
                $seen->count += 1;
                if ($message === LAST) {
                    $seen->recovered = true;
                    fwrite($its, json_encode(get_object_vars($seen)));
                    exit(0);
                }
            });
        } catch (Throwable $error) {
            $seen->error($error);
            $seen->reconnect($library, $name);
        }
    }
}

function run(string $name, Library $library): void
{
    $prefix = strtok($name, ' ');
    $others = [
        'pubsub' => beside($library, 'pubsub', fn ($library, $heard) => $library->subscribe("$prefix:channel", $heard)),
        'blocking' => beside($library, 'blocking', function ($library, $heard) use ($prefix) {
            $popped = $library->pop(["$prefix:queue", "$prefix:last"]);
            if ($popped !== null) {
                $heard($popped);
            }
        }),
    ];
    $seen = new Seen();
    $acknowledged = [];
    $wrong = 0;
    $expect = function (?string $value, string $expected) use (&$wrong): void {
        // Null is a lost write, which is counted in the end.
        $wrong += $value !== null && $value !== $expected ? 1 : 0;
    };
    $library->connect('ordinary');
    stream_set_blocking(STDIN, false);
    for ($number = 0; !ended(); $number++) {
        $token = "0:$number";
        $key = "$prefix:$token";
        $steps = [
            function () use ($library, $key, $token, $expect, &$acknowledged) {
                $library->set("$key:plain", $token);
                $acknowledged["$key:plain"] = $token;
                $expect($library->get("$key:plain"), $token);
            },
            function () use ($library, $key, $token, $expect, &$acknowledged) {
                $value = $library->pipeline("$key:p1", "$key:p2", $token);
                $acknowledged["$key:p1"] = $acknowledged["$key:p2"] = $token;
                $expect($value, $token);
            },
            function () use ($library, $key, $token, &$acknowledged) {
                $library->transaction("$key:m1", "$key:m2", $token);
                $acknowledged["$key:m1"] = $acknowledged["$key:m2"] = $token;
            },
            function () use ($library, $key, $token, $expect, &$acknowledged) {
                $expect($library->script("$key:lua", $token), $token);
                $acknowledged["$key:lua"] = $token;
            },
            function () use ($library, $prefix, $token) {
                $library->publish("$prefix:channel", $token);
                $library->push("$prefix:queue", $token);
            },
        ];
        if ($number % LARGE_EVERY === 0) {
            $steps[] = function () use ($library, $prefix, $token, $expect) {
                $value = str_pad($token, LARGE, '.');
                $library->set("$prefix:large", $value);
                $expect($library->get("$prefix:large"), $value);
            };
        }
        foreach ($steps as $step) {
            try {
                $step();
                $seen->reconnects += $library->hasReconnected() ? 1 : 0;
            } catch (Throwable $error) {
                $seen->error($error);
                $seen->reconnect($library, 'ordinary');
            }
        }
        echo "round\n";
        usleep(PAUSE_US);
    }
    $told = [];
    $deadline = microtime(true) + RECOVERY_SECONDS;
    while (count($told) < count($others) && microtime(true) < $deadline) {
        $library->publish("$prefix:channel", LAST);
        $library->push("$prefix:last", LAST);
        usleep(100_000);
        foreach ($others as $work => [$process, $socket]) {
            stream_set_blocking($socket, false);
            $text = stream_get_contents($socket);
            if ($text !== '' && $text !== false) {
                $told[$work] = json_decode($text, true);
            }
        }
    }
    foreach ($others as [$process, $socket]) {
        posix_kill($process, SIGKILL);
        pcntl_waitpid($process, $status);
    }
    $lost = 0;
    foreach (array_chunk(array_keys($acknowledged), KEYS_AT_ONCE) as $keys) {
        foreach (array_map(null, $keys, $library->many($keys)) as [$key, $value]) {
            $lost += $value === $acknowledged[$key] ? 0 : 1;
        }
    }
    $of = fn (string $what, $otherwise) => array_map(
        fn ($work) => $told[$work][$what] ?? $otherwise,
        ['pubsub' => 'pubsub', 'blocking' => 'blocking'],
    );
    echo json_encode([
        'library' => $name,
        'server' => $library->version(),
        'rounds' => $number,
        'errors' => array_map(fn ($errors) => (object) $errors, ['ordinary' => $seen->errors] + $of('errors', [])),
        'reconnects' => ['ordinary' => $seen->reconnects] + $of('reconnects', 0),
        'acknowledged' => count($acknowledged),
        'lost' => $lost,
        'wrong_values' => $wrong,
        'heard' => $told['pubsub']['count'] ?? 0,
        'popped' => $told['blocking']['count'] ?? 0,
        'recovered' => $of('recovered', false),
    ]), "\n";
}

function ended(): bool
{
    return fread(STDIN, 1) === '' && feof(STDIN);
}
