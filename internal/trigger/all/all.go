// Package all lists the trigger types that Offboard has. To add one, write its package and add a line here.
package all

import (
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/beanstalkd"
	"github.com/offboard-dev/offboard/internal/trigger/cron"
	"github.com/offboard-dev/offboard/internal/trigger/etcd"
	"github.com/offboard-dev/offboard/internal/trigger/external"
	"github.com/offboard-dev/offboard/internal/trigger/httpget"
	"github.com/offboard-dev/offboard/internal/trigger/jetstream"
	"github.com/offboard-dev/offboard/internal/trigger/kafka"
	"github.com/offboard-dev/offboard/internal/trigger/kubernetesresource"
	"github.com/offboard-dev/offboard/internal/trigger/kubernetesworkload"
	"github.com/offboard-dev/offboard/internal/trigger/metricsapi"
	"github.com/offboard-dev/offboard/internal/trigger/mongodb"
	"github.com/offboard-dev/offboard/internal/trigger/mysql"
	"github.com/offboard-dev/offboard/internal/trigger/nsq"
	"github.com/offboard-dev/offboard/internal/trigger/postgresql"
	"github.com/offboard-dev/offboard/internal/trigger/prometheus"
	"github.com/offboard-dev/offboard/internal/trigger/rabbitmq"
	"github.com/offboard-dev/offboard/internal/trigger/redis"
)

// Types returns every trigger type. Triggers made from the result of one call share connections, so a process calls it
// once.
func Types() []trigger.Type {
	overHTTP, scalers := httpget.NewClients(), external.NewClients()
	kafkas := kafka.NewClients()
	return append(redis.Types(redis.NewClients()),
		beanstalkd.Type(beanstalkd.NewClients()),
		cron.Type(),
		etcd.Type(etcd.NewClients()),
		external.PushType(scalers),
		external.Type(scalers),
		jetstream.Type(jetstream.NewClients()),
		kafka.ApacheType(kafkas),
		kafka.Type(kafkas),
		kubernetesresource.Type(),
		kubernetesworkload.Type(),
		metricsapi.Type(overHTTP),
		mongodb.Type(mongodb.NewClients()),
		mysql.Type(mysql.NewClients()),
		nsq.Type(nsq.NewClients()),
		postgresql.Type(postgresql.NewClients()),
		prometheus.Type(overHTTP),
		rabbitmq.Type(rabbitmq.NewClients()),
	)
}
