"""The life of a stream by boto3. Called with the endpoint; its last line is "done"."""

import sys

import boto3

kinesis = boto3.client(
    "kinesis",
    endpoint_url=sys.argv[1],
    region_name="us-east-1",
    aws_access_key_id=sys.argv[2],
    aws_secret_access_key=sys.argv[3],
)
NAME = "from-boto3"
kinesis.create_stream(StreamName=NAME, ShardCount=2)
kinesis.get_waiter("stream_exists").wait(StreamName=NAME)
arn = kinesis.describe_stream_summary(StreamName=NAME)["StreamDescriptionSummary"]["StreamARN"]

kinesis.add_tags_to_stream(StreamName=NAME, Tags={"team": "é"})
assert kinesis.list_tags_for_stream(StreamName=NAME)["Tags"] == [{"Key": "team", "Value": "é"}]

records = [{"Data": b"\x00record %d" % i, "PartitionKey": "key %d" % (i % 7)} for i in range(50)]
put = kinesis.put_records(StreamName=NAME, Records=records)
assert put["FailedRecordCount"] == 0

kinesis.split_shard(StreamName=NAME, ShardToSplit="shardId-000000000000", NewStartingHashKey="1000")
kinesis.update_shard_count(StreamName=NAME, TargetShardCount=4, ScalingType="UNIFORM_SCALING")
# botocore's paginator repeats StreamName beside NextToken, which Kinesis refuses.
page = kinesis.list_shards(StreamName=NAME, MaxResults=1)
shards = page["Shards"]
while "NextToken" in page:
    page = kinesis.list_shards(NextToken=page["NextToken"], MaxResults=1)
    shards += page["Shards"]
is_open = [shard for shard in shards if "EndingSequenceNumber" not in shard["SequenceNumberRange"]]
assert len(is_open) == 4, shards
assert any("AdjacentParentShardId" in shard for shard in shards), shards
described = [
    shard["ShardId"]
    for page in kinesis.get_paginator("describe_stream").paginate(
        StreamName=NAME, PaginationConfig={"PageSize": 2}
    )
    for shard in page["StreamDescription"]["Shards"]
]
assert described == [shard["ShardId"] for shard in shards]

kinesis.put_record(StreamName=NAME, Data=b"after", PartitionKey="key 1")
found = []
for shard in shards:
    iterator = kinesis.get_shard_iterator(
        StreamName=NAME, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    while iterator is not None:
        got = kinesis.get_records(ShardIterator=iterator, Limit=10)
        found += [record["Data"] for record in got["Records"]]
        iterator = got.get("NextShardIterator")
        if iterator is None:
            assert got["ChildShards"], shard
        elif got["MillisBehindLatest"] == 0 and "EndingSequenceNumber" not in shard["SequenceNumberRange"]:
            break
assert sorted(found) == sorted([record["Data"] for record in records] + [b"after"]), found

consumer = kinesis.register_stream_consumer(StreamARN=arn, ConsumerName="reader")["Consumer"]
kinesis.register_stream_consumer(StreamARN=arn, ConsumerName="other")
names = [
    one["ConsumerName"]
    for page in kinesis.get_paginator("list_stream_consumers").paginate(
        StreamARN=arn, PaginationConfig={"PageSize": 1}
    )
    for one in page["Consumers"]
]
assert names == ["other", "reader"], names


def subscribe(shard_id, **position):
    """botocore speaks HTTP/1.1 only, and reads event streams over it all the same."""
    return kinesis.subscribe_to_shard(
        ConsumerARN=consumer["ConsumerARN"], ShardId=shard_id, StartingPosition=position
    )["EventStream"]


closed = shards[0]["ShardId"]
events = [event["SubscribeToShardEvent"] for event in subscribe(closed, Type="TRIM_HORIZON")]
assert [child["ParentShards"] for child in events[-1]["ChildShards"]] == [[closed], [closed]], events
assert "ContinuationSequenceNumber" not in events[-1]
pushed = [record["Data"] for event in events for record in event["Records"]]
assert len(pushed) > 0 and set(pushed) <= {record["Data"] for record in records}, pushed

ordered = sorted(is_open, key=lambda shard: int(shard["HashKeyRange"]["StartingHashKey"]))
target = ordered[0]
live = subscribe(target["ShardId"], Type="LATEST")
reading = iter(live)
first = next(reading)["SubscribeToShardEvent"]
assert first["Records"] == [], first
key = target["HashKeyRange"]["StartingHashKey"]
sent = kinesis.put_record(StreamName=NAME, Data=b"live", PartitionKey="any", ExplicitHashKey=key)
assert sent["ShardId"] == target["ShardId"]
came = next(reading)["SubscribeToShardEvent"]
assert [record["Data"] for record in came["Records"]] == [b"live"], came
assert came["Records"][0]["SequenceNumber"] == sent["SequenceNumber"] == came["ContinuationSequenceNumber"]
try:
    subscribe(target["ShardId"], Type="AFTER_SEQUENCE_NUMBER", SequenceNumber=sent["SequenceNumber"])
    raise SystemExit("a second subscription began within five seconds of the first")
except kinesis.exceptions.ResourceInUseException:
    pass
# A merge ends the subscriptions of both parents, and says what comes after them.
kinesis.merge_shards(
    StreamName=NAME, ShardToMerge=target["ShardId"], AdjacentShardToMerge=ordered[1]["ShardId"]
)
last = [event["SubscribeToShardEvent"] for event in reading][-1]
assert last["ChildShards"][0]["ParentShards"] == [target["ShardId"], ordered[1]["ShardId"]], last
live.close()

described = kinesis.describe_stream_consumer(ConsumerARN=consumer["ConsumerARN"])["ConsumerDescription"]
assert described["ConsumerStatus"] == "ACTIVE" and described["StreamARN"] == arn
kinesis.deregister_stream_consumer(ConsumerARN=consumer["ConsumerARN"])
try:
    subscribe(closed, Type="TRIM_HORIZON")
    raise SystemExit("a consumer that is gone could subscribe")
except kinesis.exceptions.ResourceNotFoundException:
    pass

kinesis.remove_tags_from_stream(StreamName=NAME, TagKeys=["team"])
assert kinesis.list_tags_for_stream(StreamName=NAME)["Tags"] == []
created = kinesis.describe_stream_summary(StreamName=NAME)["StreamDescriptionSummary"]["StreamCreationTimestamp"]
assert kinesis.list_shards(StreamName=NAME, StreamCreationTimestamp=created)["Shards"]
kinesis.increase_stream_retention_period(StreamName=NAME, RetentionPeriodHours=48)
try:
    kinesis.increase_stream_retention_period(StreamName=NAME, RetentionPeriodHours=24)
    raise SystemExit("a shorter period was taken")
except kinesis.exceptions.InvalidArgumentException as error:
    assert "can not be shorter" in str(error)
try:
    kinesis.delete_stream(StreamName=NAME)
    raise SystemExit("a stream with a consumer was deleted")
except kinesis.exceptions.ResourceInUseException:
    pass
kinesis.delete_stream(StreamName=NAME, EnforceConsumerDeletion=True)
kinesis.get_waiter("stream_not_exists").wait(StreamName=NAME)
print("done")
