package reference

import (
	_ "embed" // the templates
	"slices"
	"strings"
	"text/template"

	"github.com/offboard-dev/offboard/internal/trigger"
)

var (
	//go:embed index.md.tmpl
	indexText string
	//go:embed type.md.tmpl
	typeText string
)

var functions = template.FuncMap{
	// cell makes a text fit for a cell of a table.
	"cell":     func(text string) string { return strings.NewReplacer("|", `\|`, "\n", " ").Replace(text) },
	"join":     func(texts []string) string { return strings.Join(texts, ", ") },
	"sentence": func(words string) string { return strings.ToUpper(words[:1]) + words[1:] + "." },
}

var (
	indexPage = template.Must(template.New("index").Funcs(functions).Parse(indexText))
	typePage  = template.Must(template.New("type").Funcs(functions).Parse(typeText))
)

// Pages returns the reference documentation by file name: a page for each type, and README.md, which lists them.
func Pages(types []trigger.Type) (map[string]string, error) {
	described := make([]Type, len(types))
	for i, t := range types {
		described[i] = Of(t)
	}
	slices.SortFunc(described, func(a, b Type) int { return strings.Compare(a.Name, b.Name) })
	pages := map[string]string{}
	write := func(name string, page *template.Template, data any) error {
		var text strings.Builder
		err := page.Execute(&text, data)
		pages[name] = text.String()
		return err
	}
	index := struct {
		Types []Type
		Kinds []kind
	}{described, kinds}
	if err := write("README.md", indexPage, index); err != nil {
		return nil, err
	}
	for _, t := range described {
		if err := write(t.Name+".md", typePage, t); err != nil {
			return nil, err
		}
	}
	return pages, nil
}
