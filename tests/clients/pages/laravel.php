<?php
// docs/clients/laravel.md: the block is the 'redis' entry of config/database.php. Usage: laravel.php BLOCK. See page.py.

require 'Illuminate/Redis/autoload.php';
require 'Illuminate/Container/autoload.php';
require __DIR__ . '/page.php';

function env(string $name, $otherwise = null)
{
    return getenv($name) ?: $otherwise;
}

$config = (eval('return [' . file_get_contents($argv[1]) . '];'))['redis'];
$manager = new Illuminate\Redis\RedisManager(new Illuminate\Container\Container(), $config['client'], $config);
// The two that Laravel has by default; queues and sessions use the first.
foreach (['default', 'cache'] as $name) {
    expect($manager->connection($name)->client()->getDbNum(), (int) $config[$name]['database']);
}
rounds(
    'illuminate/redis with phpredis ' . phpversion('redis'),
    function (int $number) use ($manager): array {
        $key = "page:laravel:$number";
        foreach (['default', 'cache'] as $name) {
            $redis = $manager->connection($name);
            $redis->set($key, "value $number");
            expect($redis->get($key), "value $number");
        }
        return [$key => "value $number"];
    },
    fn ($key) => $manager->connection()->get($key),
);
