// The life of a stream by Amazon's SDK for Go, version 2. Called with endpoint, key and secret; its last line
// is "done".
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go"
)

var name = aws.String("from-go")

func must(what string, err error) {
	if err != nil {
		fmt.Println(what, err)
		os.Exit(1)
	}
}

func expect(what string, truth bool) {
	if !truth {
		must(what, errors.New("is not so"))
	}
}

func main() {
	ctx := context.Background()
	open := func(secret string) *kinesis.Client {
		return kinesis.New(kinesis.Options{
			Region:           "us-east-1",
			Credentials:      credentials.NewStaticCredentialsProvider(os.Args[2], secret, ""),
			EndpointResolver: kinesis.EndpointResolverFromURL(os.Args[1]),
			HTTPClient:       &http.Client{},
		})
	}
	k := open(os.Args[3])
	_, err := k.CreateStream(ctx, &kinesis.CreateStreamInput{StreamName: name, ShardCount: aws.Int32(2)})
	must("create", err)
	described := &kinesis.DescribeStreamInput{StreamName: name}
	must("exists", kinesis.NewStreamExistsWaiter(k).Wait(ctx, described, 20*time.Second))
	summary, err := k.DescribeStreamSummary(ctx, &kinesis.DescribeStreamSummaryInput{StreamName: name})
	must("summary", err)
	arn := summary.StreamDescriptionSummary.StreamARN
	created := summary.StreamDescriptionSummary.StreamCreationTimestamp

	first, err := k.PutRecord(ctx, &kinesis.PutRecordInput{
		StreamName: name, Data: []byte{0, 255}, PartitionKey: aws.String("é"), ExplicitHashKey: aws.String("0"),
	})
	must("put", err)
	var entries []types.PutRecordsRequestEntry
	for i := 0; i < 50; i++ {
		entries = append(entries, types.PutRecordsRequestEntry{
			Data: []byte(fmt.Sprint("record ", i)), PartitionKey: aws.String("k"), ExplicitHashKey: aws.String("1"),
		})
	}
	puts, err := k.PutRecords(ctx, &kinesis.PutRecordsInput{StreamName: name, Records: entries})
	must("puts", err)
	expect("all are stored", *puts.FailedRecordCount == 0 && len(puts.Records) == 50)

	iterator, err := k.GetShardIterator(ctx, &kinesis.GetShardIteratorInput{
		StreamName: name, ShardId: first.ShardId,
		ShardIteratorType: types.ShardIteratorTypeAtTimestamp, Timestamp: aws.Time(time.Now().Add(-time.Minute)),
	})
	must("iterator", err)
	got, err := k.GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: iterator.ShardIterator})
	must("get", err)
	expect("all are read", len(got.Records) == 51 && *got.Records[0].PartitionKey == "é")
	expect("times are read", time.Since(*got.Records[0].ApproximateArrivalTimestamp) < time.Minute)

	consumer, err := k.RegisterStreamConsumer(ctx, &kinesis.RegisterStreamConsumerInput{
		StreamARN: arn, ConsumerName: aws.String("from-go"),
	})
	must("register", err)
	subscribe := func(shard string) (*kinesis.SubscribeToShardOutput, error) {
		return k.SubscribeToShard(ctx, &kinesis.SubscribeToShardInput{
			ConsumerARN: consumer.Consumer.ConsumerARN, ShardId: aws.String(shard),
			StartingPosition: &types.StartingPosition{Type: types.ShardIteratorTypeTrimHorizon},
		})
	}
	var missing *types.ResourceNotFoundException
	_, err = subscribe("shardId-000000000099")
	expect("a subscription to no shard is refused", errors.As(err, &missing))
	subscription, err := subscribe(*first.ShardId)
	must("subscribe", err)
	pushed := 0
	for event := range subscription.GetStream().Events() {
		pushed += len(event.(*types.SubscribeToShardEventStreamMemberSubscribeToShardEvent).Value.Records)
		if pushed == 51 {
			break
		}
	}
	must("events", subscription.GetStream().Err())
	must("unsubscribe", subscription.GetStream().Close())

	_, err = k.SplitShard(ctx, &kinesis.SplitShardInput{
		StreamName: name, ShardToSplit: first.ShardId, NewStartingHashKey: aws.String("1000"),
	})
	must("split", err)
	count, err := k.UpdateShardCount(ctx, &kinesis.UpdateShardCountInput{
		StreamName: name, TargetShardCount: aws.Int32(4), ScalingType: types.ScalingTypeUniformScaling,
	})
	must("count", err)
	expect("it had three shards", *count.CurrentShardCount == 3)
	shards, err := k.ListShards(ctx, &kinesis.ListShardsInput{
		StreamName: name, StreamCreationTimestamp: created,
		ShardFilter: &types.ShardFilter{Type: types.ShardFilterTypeAtLatest},
	})
	must("shards", err)
	expect("it has four", len(shards.Shards) == 4)

	_, err = open("wrong").ListStreams(ctx, &kinesis.ListStreamsInput{})
	var refusal smithy.APIError
	expect("a wrong secret is refused", errors.As(err, &refusal) && refusal.ErrorCode() == "InvalidSignatureException")
	_, err = k.DeleteStream(ctx, &kinesis.DeleteStreamInput{StreamName: name, EnforceConsumerDeletion: aws.Bool(true)})
	must("delete", err)
	must("is gone", kinesis.NewStreamNotExistsWaiter(k).Wait(ctx, described, 20*time.Second))
	fmt.Println("done")
}
