package network

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxShown is how many bytes of a text that a server may have written are shown.
const maxShown = 200

// Show returns a text that a server may have written as it may be shown: short, in one line, and without the secrets,
// of which none is empty.
func Show(text string, secrets []string) string {
	for _, secret := range secrets {
		text = strings.ReplaceAll(text, secret, "…")
	}
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
	if len(text) <= maxShown {
		return text
	}
	end := maxShown
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "…"
}
