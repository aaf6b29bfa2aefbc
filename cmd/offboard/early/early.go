// Package early runs `offboard runner [flags] -- COMMAND` while the program is still being initialized. The runner
// starts once per item, so it should not wait for the packages of the operator, nor hold their memory while the command
// runs. The same is good for what `offboard up` starts to keep exit statuses, which lives as long as that.
//
// It works because Go initializes the packages whose imports are done in the order of their import paths (since Go
// 1.21): this one needs little but the standard library and comes before most of k8s.io and sigs.k8s.io, which are what
// costs time. A test of the program holds it to that. The package must import nothing that needs them.
package early

import (
	"os"

	"github.com/offboard-dev/offboard/internal/local/process"
	"github.com/offboard-dev/offboard/internal/runner"
)

func init() {
	if process.IsKeeper(os.Args) {
		os.Exit(process.Keep())
	}
	if args := os.Args; len(args) >= 3 && args[1] == "runner" {
		o := runner.Options{Environ: os.Environ(), Stdout: os.Stdout, Stderr: os.Stderr}
		if o.Parse(args[2:]) {
			os.Exit(runner.Run(o))
		}
	}
}
