package queuetest

import (
	"context"
	"fmt"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/offboard-dev/offboard/internal/queue/rabbitqueue"
	"github.com/offboard-dev/offboard/internal/rabbitmqtest"
)

// RabbitMQ starts a RabbitMQ with the durable queue work of that type, classic or quorum.
func RabbitMQ(tb testing.TB, kind string) *Source {
	server := rabbitmqtest.Start(tb)
	channel := server.Channel(tb, "/")
	if _, err := channel.QueueDeclare("work", true, false, false, false, amqp.Table{"x-queue-type": kind}); err != nil {
		tb.Fatal(err)
	}
	watched := rabbitqueue.New(rabbitServer{server.AMQP()}, "work")
	tb.Cleanup(watched.Close)
	return &Source{
		Trigger: fmt.Sprintf(`{type: rabbitmq, metadata: {host: %q, queueName: work, queueLength: "1"}}`, server.AMQP()),
		Push: func(ctx context.Context, items ...string) error {
			return publish(ctx, server.AMQP(), items)
		},
		Queue: watched,
		Exact: true,
		Kill:  server.Kill, Restart: server.Restart,
	}
}

// publish publishes messages and waits until the server has them.
func publish(ctx context.Context, url string, items []string) error {
	conn, err := amqp.Dial(url)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // an error means that it is lost
	channel, err := conn.Channel()
	if err != nil {
		return err
	}
	if err := channel.Confirm(false); err != nil {
		return err
	}
	for _, item := range items {
		confirmation, err := channel.PublishWithDeferredConfirmWithContext(ctx, "", "work", true, false,
			amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte(item)})
		if err != nil {
			return err
		}
		if taken, err := confirmation.WaitContext(ctx); err != nil || !taken {
			return fmt.Errorf("the server has taken %q: %t, %w", item, taken, err)
		}
	}
	return nil
}

// rabbitServer reaches a server by its URL.
type rabbitServer struct{ url string }

func (s rabbitServer) Dial(context.Context) (*amqp.Connection, error) { return amqp.Dial(s.url) }

func (s rabbitServer) Explain(err error, _ string) error { return err }
