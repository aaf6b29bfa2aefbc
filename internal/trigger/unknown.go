package trigger

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/offboard-dev/offboard/internal/spelling"
)

// UnknownType returns the error of a type that Find does not find. It says whether KEDA has that type, and which ones
// there are.
func UnknownType(types []Type, name string) error {
	names := make([]string, len(types))
	for i, t := range types {
		names[i] = t.Name
	}
	slices.Sort(names)
	known := strings.Join(names, ", ")
	if slices.Contains(kedaTypes, name) {
		return fmt.Errorf("KEDA has trigger type %s, but Offboard does not yet: it has %s", name, known)
	}
	hint := ""
	if near := spelling.Nearest(name, names); near != "" {
		hint = "; did you mean " + strconv.Quote(near) + "?"
	}
	return fmt.Errorf("unknown trigger type %q: want one of %s%s", shorten(name), known, hint)
}

// kedaTypes are the trigger types of KEDA.
var kedaTypes = strings.Fields(`
	activemq apache-kafka arangodb artemis-queue aws-cloudwatch aws-dynamodb aws-dynamodb-streams aws-kinesis-stream
	aws-sqs-queue azure-app-insights azure-blob azure-data-explorer azure-eventhub azure-log-analytics azure-monitor
	azure-pipelines azure-queue azure-servicebus beanstalkd cassandra clickhouse couchdb cpu cron datadog dynatrace
	elastic-forecast elasticsearch etcd external external-push forgejo-runner gcp-cloudtasks gcp-pubsub gcp-spanner
	gcp-stackdriver gcp-storage github-runner graphite huawei-cloudeye ibmmq influxdb kafka kubernetes-resource
	kubernetes-workload liiklus loki memory metrics-api mongodb mssql mysql nats-jetstream new-relic nsq opensearch
	openstack-metric openstack-swift postgresql predictkube prometheus pulsar rabbitmq redis redis-cluster
	redis-cluster-streams redis-sentinel redis-sentinel-streams redis-streams selenium-grid solace-direct-messaging
	solace-event-queue solarwinds solr splunk splunk-observability sumologic temporal`)
