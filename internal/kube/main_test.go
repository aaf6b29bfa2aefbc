package kube

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"go.uber.org/goleak"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/offboard-dev/offboard/test/controlplane"
)

// programImage stands for an image of this program. What its container runs does what `offboard join` does.
const (
	programImage = "registry.example/offboard:1"
	joinScript   = `shift; for target; do :; done; while [ $# -gt 1 ]; do cat "$1"; shift; done >"$target"`
)

// shared is the control plane of the tests that do not stop it.
var shared = controlplane.Shared{Options: controlplane.Options{
	Kubelet: true, Entrypoints: map[string][]string{programImage: {"sh", "-c", joinScript, "offboard"}},
}}

func TestMain(m *testing.M) {
	log.SetLogger(logr.Discard())
	code := shared.Main(m)
	if code == 0 {
		err := goleak.Find()
		for deadline := time.Now().Add(20 * time.Second); err != nil && time.Now().Before(deadline); {
			err = goleak.Find() // what ends may take a moment
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}
