package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/offboard-dev/offboard/internal/kube/backend"
)

// completionTimeout bounds how long a Tab key may take.
const completionTimeout = 2 * time.Second

type completer = func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective)

// complete sets how a flag's value is completed.
func complete(cmd *cobra.Command, flag string, function completer) {
	if err := cmd.RegisterFlagCompletionFunc(flag, function); err != nil {
		panic(err) // the flag does not exist: an error in this package
	}
}

// completeFrom completes with names that the target knows. Without one there are none.
func (a *app) completeFrom(w *where, names func(context.Context, *target, string) ([]string, error)) completer {
	return func(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), a.completing)
		defer cancel()
		var found []string
		err := a.withTarget(ctx, w, backend.Need{}, func(t *target) (err error) {
			found, err = names(ctx, t, w.namespace)
			return err
		})
		if err != nil {
			cobra.CompDebugln(err.Error(), false)
		}
		found = slices.DeleteFunc(found, func(name string) bool {
			return slices.Contains(args, name) || !strings.HasPrefix(name, begun)
		})
		return found, cobra.ShellCompDirectiveNoFileComp
	}
}

// namespaces returns those of ScaledJobs: where there is none, a command finds nothing.
func namespaces(ctx context.Context, t *target, _ string) ([]string, error) {
	infos, err := t.ScaledJobs(ctx, "")
	var names []string
	for _, info := range infos {
		if name := info.Object.Namespace; !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, err
}

func scaledJobNames(ctx context.Context, t *target, namespace string) ([]string, error) {
	infos, err := t.ScaledJobs(ctx, namespace)
	var names []string
	for _, info := range infos {
		names = append(names, info.Object.Name)
	}
	return names, err
}

func jobNames(ctx context.Context, t *target, namespace string) ([]string, error) {
	infos, err := t.Jobs(ctx, namespace, "")
	var names []string
	for _, info := range infos {
		names = append(names, info.Job.Name)
	}
	return names, err
}

// firstOnly completes the first argument and no further one.
func firstOnly(function completer) completer {
	return func(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return function(cmd, args, begun)
	}
}
