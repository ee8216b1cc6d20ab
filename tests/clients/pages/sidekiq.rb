# docs/clients/ruby.md: Sidekiq, its worker in a process of its own; the block is the initializer. Usage: sidekiq.rb BLOCK. See page.py.

require 'json'
require 'sidekiq'

PATIENCE = 20
# Sidekiq 6.4 calls redis-rb 4.8 in a way that it grumbles about, twice a second.
Redis.silence_deprecations = true
load(ENV['PAGE_BLOCK'] ||= File.expand_path(ARGV.fetch(0)))

class PageJob
  include Sidekiq::Worker
  sidekiq_options retry: 3

  def perform(number)
    Sidekiq.redis { |redis| redis.set("page:sidekiq:#{number}", number.to_s) }
  end
end

# The rest is the one who sends; the worker only knows the job, and ends with who started it.
if Sidekiq.server?
  Thread.new do
    $stdin.read
    exit!(0)
  end
  return
end

$stdout.sync = true
worker = IO.popen({}, ['sidekiq', '--concurrency', '2', '--timeout', '1', '--require', File.expand_path(__FILE__)],
                  'w', out: File::NULL, err: $stderr)
errors = Hash.new(0)
acknowledged = {}
wrong = 0
number = 0
read = ->(key) { Sidekiq.redis { |redis| redis.get(key) } }
until $stdin.read_nonblock(1, exception: false).nil?
  begin
    PageJob.perform_async(number)
    key = "page:sidekiq:#{number}"
    deadline = Process.clock_gettime(Process::CLOCK_MONOTONIC) + PATIENCE
    sleep 0.02 until read.(key) || Process.clock_gettime(Process::CLOCK_MONOTONIC) > deadline
    wrong += 1 unless read.(key) == number.to_s
    acknowledged[key] = number.to_s
  rescue StandardError => e
    errors["#{e.class}: #{e.message}"[0, 200]] += 1
  end
  number += 1
  puts 'round'
end
worker.close
lost = acknowledged.count { |key, value| read.(key) != value }
puts JSON.generate(library: "Sidekiq #{Sidekiq::VERSION}, redis-rb #{Redis::VERSION}", errors: errors,
                   wrong_values: wrong, acknowledged: acknowledged.size, lost: lost)
