package metrics

import (
	"strings"

	"github.com/offboard-dev/offboard/internal/scaledjob"
)

// scalerName is what KEDA puts into the label scaler: the trigger's name, or else the name of the Go type that KEDA has
// for the trigger type.
func scalerName(trigger scaledjob.TriggerRef) string {
	if trigger.Name != "" {
		return trigger.Name
	}
	if name, irregular := irregularScalers[trigger.Type]; irregular {
		return name
	}
	words := strings.Split(trigger.Type, "-")
	for i, word := range words[1:] {
		if word != "" {
			words[i+1] = strings.ToUpper(word[:1]) + word[1:]
		}
	}
	return strings.Join(words, "") + "Scaler"
}

// irregularScalers are the Go types in KEDA whose names are not simply the trigger type in camel case.
var irregularScalers = map[string]string{
	"activemq":                "activeMQScaler",
	"arangodb":                "arangoDBScaler",
	"artemis-queue":           "artemisScaler",
	"aws-dynamodb":            "awsDynamoDBScaler",
	"aws-dynamodb-streams":    "awsDynamoDBStreamsScaler",
	"azure-eventhub":          "azureEventHubScaler",
	"azure-servicebus":        "azureServiceBusScaler",
	"beanstalkd":              "BeanstalkdScaler",
	"couchdb":                 "couchDBScaler",
	"cpu":                     "cpuMemoryScaler",
	"gcp-cloudtasks":          "gcpCloudTasksScaler",
	"gcp-pubsub":              "pubsubScaler",
	"gcp-spanner":             "spannerScaler",
	"gcp-stackdriver":         "stackdriverScaler",
	"gcp-storage":             "gcsScaler",
	"influxdb":                "influxDBScaler",
	"memory":                  "cpuMemoryScaler",
	"metrics-api":             "metricsAPIScaler",
	"mongodb":                 "mongoDBScaler",
	"mysql":                   "mySQLScaler",
	"nats-jetstream":          "natsJetStreamScaler",
	"new-relic":               "newrelicScaler",
	"postgresql":              "postgreSQLScaler",
	"predictkube":             "PredictKubeScaler",
	"rabbitmq":                "rabbitMQScaler",
	"redis-cluster":           "redisScaler",
	"redis-cluster-streams":   "redisStreamsScaler",
	"redis-sentinel":          "redisScaler",
	"redis-sentinel-streams":  "redisStreamsScaler",
	"solace-direct-messaging": "SolaceDMScaler",
	"solace-event-queue":      "SolaceScaler",
	"solarwinds":              "solarWindsScaler",
	"splunk":                  "SplunkScaler",
}
