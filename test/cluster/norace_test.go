//go:build !race

package cluster

// raceFlags make the operator of the tests be built as the tests are.
var raceFlags []string
