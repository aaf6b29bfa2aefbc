package trigger

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/offboard-dev/offboard/internal/spelling"
)

// Validate checks the metadata of a trigger as a manifest holds it, before any Job runs: what an environment variable
// or an authentication may give counts as unknown. hasAuth tells whether the trigger names an authentication. Besides
// bad and missing values it reports keys that the type does not have; making a trigger tolerates those, as KEDA does.
// The findings are sorted by key.
func (t Type) Validate(metadata map[string]string, hasAuth bool) []ParamError {
	values, findings := decoder{metadata: metadata, static: true, hasAuth: hasAuth}.decode(t.Params)
	findings = append(findings, t.unknownKeys(metadata)...)
	for _, param := range t.Params {
		findings = append(findings, param.shadowed(metadata)...)
	}
	if t.Check != nil {
		findings = append(findings, t.Check(values)...)
	}
	slices.SortStableFunc(findings, func(a, b ParamError) int { return strings.Compare(a.Key, b.Key) })
	return findings
}

// ValidateClaims checks what delivery by claim needs of the metadata, besides what Validate finds.
func (t Type) ValidateClaims(metadata map[string]string, hasAuth bool) []ParamError {
	values, findings := decoder{metadata: metadata, static: true, hasAuth: hasAuth}.decode(t.Params)
	if len(findings) > 0 || t.CheckClaims == nil {
		return nil
	}
	return t.CheckClaims(values)
}

// metadataKeys returns every key that the parameter gives a meaning to in a trigger's metadata, in the order in which
// they win.
func (p Param) metadataKeys() []string {
	var keys []string
	for _, source := range p.Sources {
		for _, key := range p.Keys() {
			switch source {
			case FromMetadata:
				keys = append(keys, key)
			case FromEnv:
				keys = append(keys, key+EnvSuffix)
			case FromAuth:
			}
		}
	}
	return keys
}

// shadowed warns of keys that have no effect because another key of the same parameter wins. A key that names an
// environment variable wins only where that variable is set, so nothing after it is certainly without effect.
func (p Param) shadowed(metadata map[string]string) []ParamError {
	var findings []ParamError
	winner := ""
	for _, key := range p.metadataKeys() {
		if strings.TrimSpace(metadata[key]) == "" {
			continue
		}
		if winner != "" {
			findings = append(findings, ParamError{Key: key, Warning: true,
				Message: fmt.Sprintf("has no effect because %s is given too and wins; remove one of them", winner)})
		} else if !strings.HasSuffix(key, EnvSuffix) {
			winner = key
		}
	}
	return findings
}

// legacyKey named the value of a trigger before KEDA 2.12, where type prometheus required it. KEDA has ignored it
// since, and manifests still have it.
const legacyKey = "metricName"

// unknownKeys reports the metadata keys that nothing gives a meaning to.
func (t Type) unknownKeys(metadata map[string]string) []ParamError {
	if t.OtherKeys {
		return nil
	}
	known := map[string]bool{}
	elsewhere := map[string]string{}
	for _, param := range t.Params {
		for _, key := range param.metadataKeys() {
			known[key] = true
		}
		for _, key := range param.Keys() {
			switch {
			case !param.From(FromMetadata):
				elsewhere[key] = "cannot be given in metadata; give " + param.places()
			case !param.From(FromEnv):
				elsewhere[key+EnvSuffix] = "cannot be read from the environment; give " + param.places()
			}
		}
	}
	var findings []ParamError
	for _, key := range slices.Sorted(maps.Keys(metadata)) {
		if known[key] {
			continue
		}
		if key == legacyKey {
			findings = append(findings, ParamError{Key: key, Warning: true,
				Message: "has no effect, as in KEDA since 2.12, which names the value itself; leave it out"})
			continue
		}
		message := elsewhere[key]
		if message == "" {
			message = "is not a parameter of trigger type " + t.Name
			if near := spelling.Nearest(key, slices.Sorted(maps.Keys(known))); near != "" {
				message += "; did you mean " + near + "?"
			}
		}
		// The value is left out: under a misspelt key it may be a password.
		findings = append(findings, ParamError{Key: key, Message: message})
	}
	return findings
}
