package podenv

import "strings"

// Variable is one environment variable.
type Variable struct {
	Name  string
	Value string
}

// Skipped names keys of a Secret or ConfigMap that envFrom did not turn into variables, because prefix and key together
// are no valid name of a variable. The container starts all the same, as on a cluster.
type Skipped struct {
	// Source is the object, for example `Secret "shop/redis"`.
	Source string
	// Keys are the keys, sorted.
	Keys []string
}

// Env is the environment of one container. The zero value is empty.
type Env struct {
	vars    []Variable
	index   map[string]int
	skipped []Skipped
}

// Lookup returns the value of a variable and whether there is one.
func (e *Env) Lookup(name string) (string, bool) {
	i, found := e.index[name]
	if !found {
		return "", false
	}
	return e.vars[i].Value, true
}

// Map returns the variables by name. The caller owns the map.
func (e *Env) Map() map[string]string {
	values := make(map[string]string, len(e.vars))
	for _, v := range e.vars {
		values[v.Name] = v.Value
	}
	return values
}

// Environ returns the variables as NAME=VALUE for a process, each name once: first those of inherited (of the same
// form) that the Env does not set itself, then the base variables, those of envFrom, and those of env, in their order.
//
// What is inherited is to a process what the image's own environment is to a container: PATH, HOME and the like. It is
// given to the process, but a $(NAME) in the manifest does not see it, as on a cluster.
func (e *Env) Environ(inherited []string) []string {
	environ := make([]string, 0, len(inherited)+len(e.vars))
	last := make(map[string]int, len(inherited))
	for _, entry := range inherited {
		name, _, found := strings.Cut(entry, "=")
		if !found || name == "" {
			continue
		}
		if _, set := e.index[name]; set {
			continue
		}
		if i, again := last[name]; again {
			environ[i] = entry
			continue
		}
		last[name] = len(environ)
		environ = append(environ, entry)
	}
	for _, v := range e.vars {
		environ = append(environ, v.Name+"="+v.Value)
	}
	return environ
}

// Skipped returns what envFrom could not turn into variables, in the order of the sources.
func (e *Env) Skipped() []Skipped { return e.skipped }

// set gives a variable its value; a name that exists already keeps its place.
func (e *Env) set(name, value string) {
	if i, found := e.index[name]; found {
		e.vars[i].Value = value
		return
	}
	if e.index == nil {
		e.index = map[string]int{}
	}
	e.index[name] = len(e.vars)
	e.vars = append(e.vars, Variable{Name: name, Value: value})
}
