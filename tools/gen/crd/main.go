// Command crd finishes the CustomResourceDefinitions that controller-gen has made of the API types:
//
//	crd FROM TO
//
// reads the YAML files of the folder FROM and writes files of the same names into the folder TO.
//
// It does what no marker in the types can: it drops the descriptions of types that are not ours, which are two thirds
// of the text and too much for the annotation in which `kubectl apply` keeps what was applied, and it patches the schema
// of the ScaledJob as KEDA patches its own.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: crd FROM TO")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "crd:", err)
		os.Exit(1)
	}
}

func run(from, to string) error {
	paths, err := filepath.Glob(filepath.Join(from, "*.yaml"))
	if err != nil {
		return err
	}
	if len(paths) == 0 {
		return fmt.Errorf("there is no YAML file in %s", from)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if data, err = finish(data); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if err := os.WriteFile(filepath.Join(to, filepath.Base(path)), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func finish(data []byte) ([]byte, error) {
	var definition map[string]any
	if err := yaml.Unmarshal(data, &definition); err != nil {
		return nil, err
	}
	versions, err := list(definition, "spec", "versions")
	if err != nil {
		return nil, err
	}
	for _, version := range versions {
		root, err := object(version, "schema", "openAPIV3Schema")
		if err != nil {
			return nil, err
		}
		// Clients are told what these are by the API server itself.
		for _, standard := range []string{"apiVersion", "kind"} {
			field, err := object(root, "properties", standard)
			if err != nil {
				return nil, err
			}
			delete(field, "description")
		}
		if kind, _ := object(definition, "spec", "names"); kind["kind"] == "ScaledJob" {
			if err := scaledJob(root); err != nil {
				return nil, err
			}
		}
	}
	out, err := yaml.Marshal(definition)
	if err != nil {
		return nil, err
	}
	return append([]byte("---\n"), bytes.TrimPrefix(out, []byte("---\n"))...), nil
}

func scaledJob(root map[string]any) error {
	job, err := object(root, "properties", "spec", "properties", "jobTargetRef")
	if err != nil {
		return err
	}
	own := job["description"]
	undescribe(job)
	job["description"] = own

	// The metadata of a template may hold any field of ObjectMeta, such as the creationTimestamp that clients write.
	metadata, err := object(job, "properties", "template", "properties", "metadata")
	if err != nil {
		return err
	}
	metadata["x-kubernetes-preserve-unknown-fields"] = true

	// A trigger of a ScaledJob has no metricType. The Go type knows it for manifests that are read without a server.
	trigger, err := object(root, "properties", "spec", "properties", "triggers", "items", "properties")
	if err != nil {
		return err
	}
	if _, found := trigger["metricType"]; !found {
		return errors.New("triggers have no metricType that could be removed")
	}
	delete(trigger, "metricType")
	return nil
}

// undescribe removes the descriptions of a schema and of all below it. A property that is itself named description has
// a schema, and not a text, for a value.
func undescribe(schema any) {
	switch schema := schema.(type) {
	case map[string]any:
		if _, isText := schema["description"].(string); isText {
			delete(schema, "description")
		}
		for _, value := range schema {
			undescribe(value)
		}
	case []any:
		for _, value := range schema {
			undescribe(value)
		}
	}
}

func object(in any, path ...string) (map[string]any, error) {
	value, err := find(in, path)
	if err != nil {
		return nil, err
	}
	m, ok := value.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%s is %T, not an object", strings.Join(path, "."), value)
	}
	return m, nil
}

func list(in any, path ...string) ([]any, error) {
	value, err := find(in, path)
	if err != nil {
		return nil, err
	}
	l, ok := value.([]any)
	if !ok {
		return nil, fmt.Errorf("%s is %T, not a list", strings.Join(path, "."), value)
	}
	return l, nil
}

func find(in any, path []string) (any, error) {
	for i, name := range path {
		m, ok := in.(map[string]any)
		if !ok || m[name] == nil {
			return nil, fmt.Errorf("there is no %s", strings.Join(path[:i+1], "."))
		}
		in = m[name]
	}
	return in, nil
}
