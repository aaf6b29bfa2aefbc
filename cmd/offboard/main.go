// Command offboard turns items of a queue into Jobs that run to completion.
package main

import (
	"context"
	"os"

	"github.com/offboard-dev/offboard/internal/cli"
	"github.com/offboard-dev/offboard/internal/runner"
)

// version is set by the linker.
var version string

func main() {
	os.Exit(run())
}

func run() int {
	// The runner starts once per item, so it does not wait for the commands to be put together.
	if args := os.Args[1:]; len(args) >= 2 && args[0] == "runner" && args[1] == "--" {
		return runner.Run(runner.Options{
			Command: args[2:], Environ: os.Environ(), Stdout: os.Stdout, Stderr: os.Stderr,
		})
	}
	return cli.Execute(context.Background(), cli.Options{
		Version: version, Args: os.Args[1:], Environ: os.Environ(), In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
	})
}
