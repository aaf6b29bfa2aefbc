// Package crds holds the CustomResourceDefinitions of the types in api/v1alpha1, prints them, and installs them in a
// cluster. The YAML files are written by `make generate`.
//
// It decides nothing about the objects of these types, and it never changes a definition that somebody else, KEDA above
// all, has installed.
package crds

import (
	"bytes"
	"embed"
	"fmt"
	"io/fs"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

// The label that tells Offboard's definitions from those of others.
const (
	LabelPartOf = "app.kubernetes.io/part-of"
	PartOf      = "offboard"
)

//go:embed *.yaml
var files embed.FS

// YAML returns the definitions as one text of several documents, which kubectl can apply.
func YAML() []byte {
	return bytes.Join(documents(), nil)
}

// Definitions returns the definitions. They belong to the caller.
func Definitions() []*apiextensionsv1.CustomResourceDefinition {
	var definitions []*apiextensionsv1.CustomResourceDefinition
	for _, document := range documents() {
		definition := &apiextensionsv1.CustomResourceDefinition{}
		if err := yaml.UnmarshalStrict(document, definition); err != nil {
			panic(fmt.Sprintf("crds: a generated file is broken: %v", err))
		}
		definitions = append(definitions, definition)
	}
	return definitions
}

// documents returns the files in the order of their names.
func documents() [][]byte {
	names, err := fs.Glob(files, "*.yaml")
	if err != nil {
		panic(fmt.Sprintf("crds: %v", err))
	}
	texts := make([][]byte, len(names))
	for i, name := range names {
		if texts[i], err = files.ReadFile(name); err != nil {
			panic(fmt.Sprintf("crds: %v", err))
		}
	}
	return texts
}
