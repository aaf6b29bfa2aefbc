// Command offboard turns items of a queue into Jobs that run to completion.
package main

import (
	"context"
	"os"

	_ "github.com/offboard-dev/offboard/cmd/offboard/early" // `offboard runner` and the keeper
	"github.com/offboard-dev/offboard/internal/cli"
)

// version is set by the linker.
var version string

func main() {
	os.Exit(cli.Execute(context.Background(), cli.Options{
		Version: version, Program: os.Args[0], Args: os.Args[1:], Environ: os.Environ(),
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
	}))
}
