package process

import (
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Reasons why a container terminated, in the words of Kubernetes.
const (
	ReasonCompleted  = "Completed"
	ReasonError      = "Error"
	ReasonStartError = "StartError"
)

// Exit says how a container ended.
type Exit struct {
	// Code is the exit code; 128 plus the number of the signal if one ended the main process.
	Code int
	// Signal is the signal that ended the main process; 0 if none did.
	Signal syscall.Signal
	// StartedAt and FinishedAt are when the main process was started and when it ended.
	StartedAt, FinishedAt time.Time
	// DroppedBytes is how much output was dropped because the log could not be written.
	DroppedBytes int64
	// DropError is the first error that made output be dropped; nil if none was.
	DropError error
}

func newExit(status syscall.WaitStatus, started, finished time.Time) Exit {
	exit := Exit{Code: status.ExitStatus(), StartedAt: started, FinishedAt: finished}
	if status.Signaled() {
		exit.Signal = status.Signal()
		exit.Code = 128 + int(exit.Signal)
	}
	return exit
}

// Reason is ReasonCompleted for exit code 0, else ReasonError.
func (e Exit) Reason() string {
	if e.Code == 0 {
		return ReasonCompleted
	}
	return ReasonError
}

// SignalName is the name of Signal, for example SIGKILL; empty if there was none.
func (e Exit) SignalName() string {
	if e.Signal == 0 {
		return ""
	}
	if name := unix.SignalName(e.Signal); name != "" {
		return name
	}
	return fmt.Sprintf("signal %d", int(e.Signal))
}

// String says it in words, for example "exit code 137 (SIGKILL)".
func (e Exit) String() string {
	if e.Signal != 0 {
		return fmt.Sprintf("exit code %d (%s)", e.Code, e.SignalName())
	}
	return fmt.Sprintf("exit code %d", e.Code)
}

// StartError says why a container could not be started.
type StartError struct {
	// Code is the exit code that a shell gives: 127 if there is no such program, 126 if it cannot be run.
	Code int
	// Message says what is wrong and what would be right.
	Message string
	// Temporary tells that the machine is to blame, not the Spec, so that a later try may succeed.
	Temporary bool
	// Err is the system's error; nil if there is none.
	Err error
}

func (e *StartError) Error() string { return e.Message }

// Unwrap returns the system's error.
func (e *StartError) Unwrap() error { return e.Err }
