//go:build race

package cluster

// raceFlags make the operator of the tests be built as the tests are, whatever GOFLAGS says: what was compiled for them
// serves for it too.
var raceFlags = []string{"-race", "-trimpath=false"}
