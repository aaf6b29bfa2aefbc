package podenv

import (
	"errors"
	"strings"
)

// errTooLong tells that an expansion would exceed its limit.
var errTooLong = errors.New("too long")

// expand replaces the references $(NAME) in value by what lookup knows, as the Kubernetes API documents it for env,
// command and args: a name that lookup does not know stays as written, $$ is one $ that begins no reference, and a
// result is not expanded again. It fails with errTooLong rather than return more than limit bytes: a chain of
// variables, each naming the one before it twice, would otherwise fill the memory.
//
// The time is linear in the length of value and of the result.
func expand(value string, lookup func(name string) (string, bool), limit int) (string, error) {
	if len(value) > limit {
		// References could shorten it, but such a value is of no use to anyone.
		return "", errTooLong
	}
	if strings.IndexByte(value, '$') < 0 {
		return value, nil
	}

	var out strings.Builder
	out.Grow(len(value))
	rest := value
	for {
		dollar := strings.IndexByte(rest, '$')
		if dollar < 0 || dollar == len(rest)-1 {
			out.WriteString(rest)
			break
		}
		out.WriteString(rest[:dollar])
		rest = rest[dollar:]

		switch rest[1] {
		case '$':
			out.WriteByte('$')
			rest = rest[2:]
		case '(':
			length := strings.IndexByte(rest, ')')
			if length < 0 {
				// No reference can be closed any more, so that looking for more of them, which would make the time
				// quadratic, is needless: only $$ still means something.
				out.WriteString(strings.ReplaceAll(rest, "$$", "$"))
				rest = ""
				break
			}
			reference := rest[:length+1]
			if known, found := lookup(reference[2:length]); found {
				out.WriteString(known)
			} else {
				out.WriteString(reference)
			}
			rest = rest[length+1:]
		default:
			out.WriteByte('$')
			rest = rest[1:]
		}
		if out.Len() > limit {
			return "", errTooLong
		}
	}
	if out.Len() > limit {
		return "", errTooLong
	}
	return out.String(), nil
}
