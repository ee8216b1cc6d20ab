# INCR by redis-rb; see incr.py.

require 'redis'

begin
  puts Redis.new(port: ARGV.fetch(0).to_i).incr('a')
rescue StandardError => e
  puts e.class
end
