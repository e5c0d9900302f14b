# The life of a stream by Amazon's SDK for Ruby, version 1. Called with host, port, key and secret; its last
# line is "done".

require "aws"

host, port, id, secret = ARGV
AWS.config(
  access_key_id: id,
  secret_access_key: secret,
  region: "us-east-1",
  kinesis_endpoint: host,
  kinesis_port: port.to_i,
  use_ssl: false
)
NAME = { stream_name: "from-ruby" }.freeze
kinesis = AWS::Kinesis::Client.new

def must(truth)
  raise "not so" unless truth
end

kinesis.create_stream(shard_count: 2, **NAME)
must kinesis.describe_stream(NAME)[:stream_description][:stream_status] == "ACTIVE"
first = kinesis.put_record(data: "\x00caf\xC3\xA9", partition_key: "a", **NAME)
kinesis.put_record(
  data: "second",
  partition_key: "a",
  sequence_number_for_ordering: first[:sequence_number],
  **NAME
)
place = {
  shard_id: first[:shard_id],
  shard_iterator_type: "AT_SEQUENCE_NUMBER",
  starting_sequence_number: first[:sequence_number]
}
iterator = kinesis.get_shard_iterator(place.merge(NAME))[:shard_iterator]
records = kinesis.get_records(shard_iterator: iterator)[:records]
must(records.map { |record| record[:data].b } == ["\x00caf\xC3\xA9".b, "second".b])
kinesis.add_tags_to_stream(tags: { "team" => "red" }, **NAME)
must kinesis.list_tags_for_stream(NAME)[:tags] == [{ key: "team", value: "red" }]
kinesis.split_shard(shard_to_split: "shardId-000000000000", new_starting_hash_key: "100", **NAME)
kinesis.merge_shards(shard_to_merge: "shardId-000000000002", adjacent_shard_to_merge: "shardId-000000000003", **NAME)
must kinesis.describe_stream(NAME)[:stream_description][:shards].length == 5
begin
  kinesis.put_record(data: "", partition_key: "", **NAME)
  must false
rescue AWS::Kinesis::Errors::ValidationException => error
  must error.message.start_with?("1 validation error detected: Value '' at 'partitionKey'")
end
kinesis.delete_stream(NAME)
begin
  kinesis.describe_stream(NAME)
  must false
rescue AWS::Kinesis::Errors::ResourceNotFoundException => error
  must error.message == "Stream from-ruby under account 000000000000 not found."
end
puts "done"
