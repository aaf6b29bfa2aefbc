package admission_test

import (
	"os"
	"testing"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/offboard-dev/offboard/test/controlplane"
)

// shared is the control plane of the tests that need one.
var shared controlplane.Shared

func TestMain(m *testing.M) {
	log.SetLogger(logr.Discard()) // of requests that no API server sends
	os.Exit(shared.Main(m))
}
