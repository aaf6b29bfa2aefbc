// Package examples holds the examples of the documentation, so that `offboard demo` runs the same files that a reader
// sees.
package examples

import "embed"

// UserTask is the folder usertask: a ScaledJob that turns each item of a Redis list into one run of a script.
//
//go:embed usertask
var UserTask embed.FS
