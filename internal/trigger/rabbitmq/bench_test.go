package rabbitmq_test

import (
	"testing"

	"github.com/offboard-dev/offboard/internal/rabbitmqtest"
	"github.com/offboard-dev/offboard/internal/trigger/rabbitmq"
	"github.com/offboard-dev/offboard/internal/trigger/triggertest"
)

// BenchmarkMeasure compares a measurement with the client's own call.
func BenchmarkMeasure(b *testing.B) {
	server := rabbitmqtest.Start(b)
	channel := server.Channel(b, "/")
	server.Queue(b, channel, "jobs", 3)
	b.Run("amqp", func(b *testing.B) {
		made := build(b, rabbitmq.NewClients(), config{"queueName": "jobs", "host": server.AMQP()}, nil)
		triggertest.Compare(b, made, func() error {
			_, err := channel.QueueDeclarePassive("jobs", false, false, false, false, nil)
			return err
		})
	})
	b.Run("http", func(b *testing.B) {
		made := build(b, rabbitmq.NewClients(), config{"queueName": "jobs", "host": server.HTTP()}, nil)
		get := triggertest.Getter(b)
		triggertest.Compare(b, made, func() error { return get(server.HTTP()+"/api/queues/%2F/jobs", nil) })
	})
}
