<?php
// docs/clients/php.md, sessions: the block is of php.ini. Usage: sessions.php BLOCK. See page.py.

ini_set('session.use_cookies', '0');
ini_set('session.cache_limiter', '');
foreach (parse_ini_file($argv[1], false, INI_SCANNER_RAW) as $name => $value) {
    if (ini_set($name, $value) === false) {
        fwrite(STDERR, "$name is not known\n");
        exit(1);
    }
}
require __DIR__ . '/page.php';

// A warning is how a session that could not be read or written is told.
set_error_handler(function ($level, $text) {
    throw new ErrorException($text);
});
session_id('page' . getmypid());
$locked = ini_get('redis.session.locking_enabled');
rounds(
    'phpredis ' . phpversion('redis') . " sessions, locking $locked",
    function (int $number): array {
        session_start();
        $before = $_SESSION['round'] ?? -1;
        $_SESSION['round'] = $number;
        $_SESSION["round $number"] = $number;
        session_write_close();
        expect($before, $number - 1);
        return ["round $number" => $number];
    },
    function (string $key) {
        session_start(['read_and_close' => true]);
        return $_SESSION[$key] ?? null;
    },
);
