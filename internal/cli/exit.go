package cli

import (
	"fmt"

	"github.com/offboard-dev/offboard/internal/control"
)

// The exit codes of every command but runner. exitHelp documents them.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitUnavailable = 4
	exitRefused     = 5
)

const exitHelp = `Exit codes:
  0  success
  1  failure
  2  wrong usage, or invalid input
  3  what was asked for does not exist
  4  offboard up is not running, or it, the cluster or something that they need does not answer
  5  refused: another item holds the unique key (push), or Jobs or runners work on the items (release)`

// exitCode is an error that says nothing more than the exit code: what is wrong has been printed.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

// usageError is an error in how a command was called, or in its input.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usageErrorf(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// refusedError tells that nothing was done because of what there is already.
type refusedError struct{ error }

func (e refusedError) Unwrap() error { return e.error }

// codeOf returns the exit code for an error.
func codeOf(err error) int {
	if _, ok := errorAs[usageError](err); ok {
		return exitUsage
	}
	if _, ok := errorAs[refusedError](err); ok {
		return exitRefused
	}
	switch control.ReasonOf(err) {
	case control.NotFound:
		return exitNotFound
	case control.BadRequest:
		return exitUsage
	case control.Unavailable, control.NotRunning, control.Timeout:
		return exitUnavailable
	case control.Internal:
	}
	return exitFailure
}
