// Package podenv computes what Kubernetes computes before it starts a container: its environment, from env and envFrom
// with their Secrets, ConfigMaps and Pod fields, and its command line, both with $(VAR) references expanded.
//
// Two kinds of caller need it. A runner of Pods needs everything, in order, for a Pod that exists: ForContainer, then
// Env.Environ and Argv. A trigger's …FromEnv parameters need what is known of the environment of a Job that does not
// run yet: ForTemplate, then Env.Map.
//
// The rules are the kubelet's, of Kubernetes 1.34 and later: envFrom comes first and a later source wins; env comes
// second, in order, and wins over envFrom; a reference sees envFrom and what stands before it; a name may consist of
// any printable ASCII characters except '='.
//
// The package reads objects and computes. It starts no process, reads nothing of this process's own environment, logs
// nothing, and never puts a value into an error.
package podenv
