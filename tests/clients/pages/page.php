<?php
// What the programs that run a page's own block share; see page.py, whose report this is.

const PAUSE_US = 20_000;

// Calls $work(number) until standard input ends; it gives key => value of what was acknowledged, which $read finds in the end.
function rounds(string $library, callable $work, callable $read): void
{
    $errors = [];
    $acknowledged = [];
    stream_set_blocking(STDIN, false);
    for ($number = 0; !(fread(STDIN, 1) === '' && feof(STDIN)); $number++) {
        try {
            $acknowledged += $work($number);
        } catch (Throwable $error) {
            $kind = substr(get_class($error) . ': ' . $error->getMessage(), 0, 200);
            $errors[$kind] = ($errors[$kind] ?? 0) + 1;
        }
        fwrite(STDOUT, "round\n");
        usleep(PAUSE_US);
    }
    $lost = 0;
    foreach ($acknowledged as $key => $value) {
        $lost += $read($key) === $value ? 0 : 1;
    }
    fwrite(STDOUT, json_encode([
        'library' => $library,
        'errors' => (object) $errors,
        'wrong_values' => $GLOBALS['wrong'] ?? 0,
        'acknowledged' => count($acknowledged),
        'lost' => $lost,
    ]) . "\n");
}

function expect($what, $expected): void
{
    $GLOBALS['wrong'] = ($GLOBALS['wrong'] ?? 0) + ($what === $expected ? 0 : 1);
}
