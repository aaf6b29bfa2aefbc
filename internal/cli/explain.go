package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/fatih/color"
	"github.com/spf13/cobra"

	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/reference"
)

func (a *app) explainCommand() *cobra.Command {
	output := choice{allowed: []string{outputJSON, outputYAML}}
	var example bool
	cmd := &cobra.Command{
		Use:   "explain TYPE[.PARAMETER]",
		Short: "Explain a trigger type and its parameters",
		Long: `Explain the parameters of a trigger type: what each means, which values it takes, its default, whether it is
required, and where it may be given; and show a ScaledJob with such a trigger. With a parameter's name after a dot,
explain that one.

A parameter may be given in the trigger's metadata, in an environment variable of the Job's container that the metadata
key <name>FromEnv names, or in the TriggerAuthentication that authenticationRef names. Of several places, the first that
has a value wins.

--example prints the manifest alone. The same as here is in docs/triggers.

` + exitHelp,
		Example: `  offboard explain redis
  offboard explain redis.listLength
  offboard explain redis --example > scaledjob.yaml
  offboard explain redis -o json | jq -r '.parameters[] | select(.required) | .name'`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.explain(args[0], output.value, example)
		},
		ValidArgsFunction: firstOnly(completeExplained),
	}
	choiceVar(cmd, &output, "output", "o", "output format")
	cmd.Flags().BoolVar(&example, "example", false, "print the example's manifest alone")
	cmd.MarkFlagsMutuallyExclusive("output", "example")
	return cmd
}

// completeExplained completes types, and parameters after a dot.
func completeExplained(_ *cobra.Command, _ []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
	types := triggerTypes()
	var found []cobra.Completion
	if name, _, dotted := strings.Cut(begun, "."); dotted {
		t, _ := trigger.Find(types, name)
		for _, param := range t.Params {
			if full := name + "." + param.Name; strings.HasPrefix(full, begun) {
				found = append(found, cobra.CompletionWithDesc(full, param.Doc))
			}
		}
		return found, cobra.ShellCompDirectiveNoFileComp
	}
	for _, t := range types {
		if strings.HasPrefix(t.Name, begun) {
			found = append(found, cobra.CompletionWithDesc(t.Name, t.Doc))
		}
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) explain(what, output string, example bool) error {
	types := triggerTypes()
	name, paramName, dotted := strings.Cut(what, ".")
	declared, found := trigger.Find(types, name)
	if !found {
		return notFoundError(trigger.UnknownType(types, name).Error())
	}
	described := reference.Of(declared)
	if !dotted {
		switch {
		case example:
			_, err := io.WriteString(a.Out, described.Example)
			return err
		case output != outputTable:
			return printObject(a.Out, output, described)
		}
		_, err := io.WriteString(a.Out, a.typeText(described))
		return err
	}
	if example {
		return usageErrorf("--example shows a whole type: name it without a parameter: %s", name)
	}
	param, err := findParam(described, paramName)
	switch {
	case err != nil:
		return err
	case output != outputTable:
		return printObject(a.Out, output, param)
	}
	_, err = io.WriteString(a.Out, a.paramText(param, ""))
	return err
}

// findParam returns the parameter of that name or alias.
func findParam(t reference.Type, name string) (reference.Param, error) {
	var names []string
	for _, param := range t.Params {
		for _, key := range append([]string{param.Name}, param.Aliases...) {
			if key == name {
				return param, nil
			}
			names = append(names, key)
		}
	}
	return reference.Param{}, notFoundError(fmt.Sprintf("trigger type %s has no parameter %q%s; see: offboard explain %s",
		t.Name, name, didYouMean(name, names), t.Name))
}

func (a *app) typeText(t reference.Type) string {
	coloured := a.colours(a.Out)
	title := func(text string) string { return paint(coloured, text, color.Bold) + "\n" }
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n\n", paint(coloured, t.Name, color.Bold), t.Doc)
	for _, ability := range t.Abilities() {
		b.WriteString(strings.ReplaceAll(ability, "`", "") + "\n")
	}
	b.WriteString("\n" + title("PARAMETERS"))
	for _, param := range t.Params {
		b.WriteString(a.paramText(param, "  "))
	}
	b.WriteString("\n" + title("EXAMPLE"))
	for line := range strings.Lines(t.Example) {
		b.WriteString("  " + line)
	}
	return b.String()
}

// paramText is a parameter in two lines or three: its name and value, where it may be given, and what it means.
func (a *app) paramText(p reference.Param, indent string) string {
	name := paint(a.colours(a.Out), p.Name, color.Bold)
	for _, alias := range p.Aliases {
		name += " or " + alias
	}
	facts := []string{string(p.Kind), p.Need()}
	if limits := p.Limits(); limits != "" {
		facts = append(facts, limits)
	}
	if p.Secret {
		facts = append(facts, "secret")
	}
	return fmt.Sprintf("%s%s: %s\n%s    given in %s\n%s    %s\n", indent, name, strings.Join(facts, "; "),
		indent, strings.Join(p.Places(), ", "), indent, p.Doc)
}
