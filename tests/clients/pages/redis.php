<?php
// docs/clients/php.md, phpredis and Predis: a block defines $redis. Usage: redis.php BLOCK. See page.py.

require __DIR__ . '/page.php';
if (!extension_loaded('redis') || str_contains(file_get_contents($argv[1]), 'Predis')) {
    require_once 'Predis/Autoloader.php';
    Predis\Autoloader::register();
}
require $argv[1];

$name = $redis instanceof Redis ? 'phpredis ' . phpversion('redis') : 'Predis ' . Predis\Client::VERSION;
rounds(
    $name,
    function (int $number) use ($redis, $name): array {
        $key = "page:$name:$number";
        $redis->set($key, "value $number");
        expect($redis->get($key), "value $number");
        return [$key => "value $number"];
    },
    fn ($key) => $redis->get($key),
);
