<?php
// INCR by phpredis or Predis; see incr.py.

if (str_starts_with($argv[2], 'Predis')) {
    require_once 'Predis/Autoloader.php';
    Predis\Autoloader::register();
    $redis = new Predis\Client(['host' => '127.0.0.1', 'port' => (int) $argv[1]]);
} else {
    $redis = new Redis();
    $redis->connect('127.0.0.1', (int) $argv[1], 5, null, 100, 20);
    $redis->setOption(Redis::OPT_MAX_RETRIES, 3);
}
try {
    echo $redis->incr('a');
} catch (Throwable $error) {
    echo (new ReflectionClass($error))->getShortName();
}
