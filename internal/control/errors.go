package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Reason says in one word what kind of error it is, for programs.
type Reason string

// The reasons of errors.
const (
	// NotFound: what was asked for does not exist.
	NotFound Reason = "NotFound"
	// BadRequest: the request can never succeed as it is.
	BadRequest Reason = "BadRequest"
	// Unavailable: something that is needed, such as Redis, does not answer at present.
	Unavailable Reason = "Unavailable"
	// NotRunning: no `offboard up` works with the data folder. Only a client says so.
	NotRunning Reason = "NotRunning"
	// Timeout: the answer took too long; whether the request had an effect is not known.
	Timeout Reason = "Timeout"
	// Internal: anything else.
	Internal Reason = "Internal"
)

// Error is an error that keeps its reason on the way through the socket.
type Error struct {
	Reason  Reason
	Message string
	cause   error
}

// Errorf returns an Error with a message in the manner of fmt.Errorf, whose %w it understands.
func Errorf(reason Reason, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Reason: reason, Message: err.Error(), cause: errors.Unwrap(err)}
}

// NoItems returns the error of a question about the items of a queue that hands out none.
func NoItems(of Queue) *Error {
	return Errorf(BadRequest, "the trigger that reads %q cannot hand out items, so nothing is known of them; "+
		"`offboard triggers` says which types can", of.Name)
}

// NoQueue returns the error of a push to a queue that no ScaledJob reads. known are the queues that there are, and
// unready says of ScaledJobs that may read others what is wrong with them.
func NoQueue(queue Queue, known, unready []string) *Error {
	text := "no ScaledJob has a queue that items can be pushed to"
	if queue.ScaledJob != "" {
		text = fmt.Sprintf("ScaledJob %s has no queue that items can be pushed to, or does not exist", queue.ScaledJob)
	}
	if len(known) > 0 {
		quoted := make([]string, len(known))
		for i, name := range known {
			quoted[i] = strconv.Quote(name)
		}
		text = fmt.Sprintf("no ScaledJob reads the queue %q; there is %s", queue.Name, strings.Join(quoted, ", "))
	}
	return Errorf(NotFound, "%s", strings.Join(append([]string{text}, unready...), "; "))
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Unwrap returns the error that the message was made from, if any.
func (e *Error) Unwrap() error { return e.cause }

// ReasonOf returns the reason of an error, Internal when it has none.
func ReasonOf(err error) Reason {
	var own *Error
	switch {
	case errors.As(err, &own):
		return own.Reason
	case apierrors.IsNotFound(err):
		return NotFound
	case apierrors.IsBadRequest(err), apierrors.IsInvalid(err):
		return BadRequest
	case apierrors.IsServiceUnavailable(err), apierrors.IsTooManyRequests(err):
		return Unavailable
	case apierrors.IsTimeout(err), apierrors.IsServerTimeout(err), errors.Is(err, context.DeadlineExceeded):
		return Timeout
	}
	return Internal
}

// errorBody is an error on the wire.
type errorBody struct {
	Reason  Reason `json:"reason"`
	Message string `json:"message"`
}

// status returns the HTTP status that goes with a reason.
func (r Reason) status() int {
	switch r {
	case NotFound:
		return http.StatusNotFound
	case BadRequest:
		return http.StatusBadRequest
	case Unavailable, NotRunning:
		return http.StatusServiceUnavailable
	case Timeout:
		return http.StatusGatewayTimeout
	case Internal:
	}
	return http.StatusInternalServerError
}
