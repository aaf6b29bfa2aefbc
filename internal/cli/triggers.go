package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/all"
)

func (a *app) triggersCommand() *cobra.Command {
	output := choice{allowed: []string{outputJSON, outputYAML, outputName}}
	var schema bool
	cmd := &cobra.Command{
		Use:   "triggers",
		Short: "List the trigger types",
		Long: `List the trigger types that a ScaledJob may have, with what each measures and what it can do:

  watch  it tells at once when its measurement may have changed, so that Jobs start within milliseconds; a type that
         cannot is asked every pollingInterval
  claim  it can hand out items, each to one Job (spec.delivery.mode: claim)

"offboard explain TYPE" shows a type's parameters. --schema prints all parameters of all types as JSON in the form of
KEDA's own schema file (scalers-schema.json), for tools that read that.

` + exitHelp,
		Example: `  offboard triggers
  offboard triggers -o name
  offboard triggers --schema | jq -r '.scalers[].parameters[].name'`,
		Args:              usageArgs(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			if schema {
				if output.value != outputTable && output.value != outputJSON {
					return usageErrorf("--schema prints JSON: leave out -o %s", output.value)
				}
				return printObject(a.Out, outputJSON, trigger.SchemaOf(all.Types()))
			}
			return a.printTriggers(output.value)
		},
	}
	choiceVar(cmd, &output, "output", "o", "output format")
	cmd.Flags().BoolVar(&schema, "schema", false, "print the parameters of all types in the form of KEDA's schema file")
	return cmd
}

// triggerTypes returns the types by name.
func triggerTypes() []trigger.Type {
	return slices.SortedFunc(slices.Values(all.Types()), func(x, y trigger.Type) int {
		return strings.Compare(x.Name, y.Name)
	})
}

// listedType is what -o json prints of a type.
type listedType struct {
	Type        string `json:"type"`
	Description string `json:"description"`
	Watches     bool   `json:"watches"`
	Claims      bool   `json:"claims"`
}

func (a *app) printTriggers(output string) error {
	types := triggerTypes()
	switch output {
	case outputJSON, outputYAML:
		listed := make([]listedType, len(types))
		for i, t := range types {
			listed[i] = listedType{t.Name, t.Doc, t.Watches, t.Claims}
		}
		return printObject(a.Out, output, struct {
			Triggers []listedType `json:"triggers"`
		}{listed})
	case outputName:
		for _, t := range types {
			if _, err := fmt.Fprintln(a.Out, t.Name); err != nil {
				return err
			}
		}
		return nil
	}
	rows := make([]row, len(types))
	for i, t := range types {
		rows[i] = row{cells: []cell{plain(t.Name), plain(abilities(t)), plain(t.Doc)}}
	}
	list := table{header: []string{"TYPE", "CAN", "MEASURES"}, coloured: a.colours(a.Out)}
	return list.print(a.Out, rows)
}

// abilities names what triggers of a type can do besides measuring.
func abilities(t trigger.Type) string {
	var can []string
	if t.Watches {
		can = append(can, "watch")
	}
	if t.Claims {
		can = append(can, "claim")
	}
	if len(can) == 0 {
		return "-"
	}
	return strings.Join(can, ", ")
}
