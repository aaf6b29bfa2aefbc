package runner

import (
	"cmp"
	"os"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// terminationLog is Kubernetes' default for terminationMessagePath. The kubelet makes the file, and shows what is in
	// it when the container has ended.
	terminationLog = "/dev/termination-log"
	// terminationPrefix tells the report from messages of others.
	terminationPrefix = "offboard item: "
	// maxTermination is how much of the file the kubelet shows.
	maxTermination = 4 << 10
)

// report tells the owner of the Job which item it is. Nothing depends on it, so its failure is no error.
func (r *run) report(item []byte) {
	if file := r.getenv(ReportVariable); file != "" {
		_ = os.WriteFile(file, item[:min(len(item), MaxReport)], 0o600)
		return
	}
	r.terminationMessage(terminationReport(item))
}

// unreport takes the report back.
func (r *run) unreport() {
	if file := r.getenv(ReportVariable); file != "" {
		_ = os.Remove(file)
		return
	}
	r.terminationMessage("")
}

// terminationMessage writes the container's, when it has one: nothing is made that is not there.
func (r *run) terminationMessage(text string) {
	file, err := os.OpenFile(cmp.Or(r.Options.terminationLog, terminationLog), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return
	}
	_, _ = file.WriteString(text)
	_ = file.Close()
}

// terminationReport returns the message that reports the item: as it is when it is one line of text, else quoted as in
// Go, since a termination message is text; and cut to what the kubelet shows.
func terminationReport(item []byte) string {
	room := maxTermination - len(terminationPrefix) - len("\n")
	text := string(item[:min(len(item), room)])
	for len(item) > room && len(text) > 0 && !validEnd(text) { // do not cut through a character
		text = text[:len(text)-1]
	}
	if strings.HasPrefix(text, `"`) || !utf8.ValidString(text) || strings.ContainsFunc(text, notPrintable) {
		quoted := strconv.Quote(text)
		for len(quoted) > room {
			// Each byte of the item takes at least one of the text.
			text = text[:len(text)-max(1, (len(quoted)-room)/len(`\x00`))]
			quoted = strconv.Quote(text)
		}
		text = quoted
	}
	return terminationPrefix + text + "\n"
}

func validEnd(text string) bool {
	r, size := utf8.DecodeLastRuneInString(text)
	return r != utf8.RuneError || size > 1
}

func notPrintable(r rune) bool { return !unicode.IsPrint(r) }

// ReportedItem returns the item that a runner has reported in its container's termination message, cut when it was
// long; false when the message is of another origin.
func ReportedItem(message string) (item string, found bool) {
	text, found := strings.CutPrefix(message, terminationPrefix)
	if !found {
		return "", false
	}
	text, _, _ = strings.Cut(text, "\n") // the command may have added to it
	if strings.HasPrefix(text, `"`) {
		if unquoted, err := strconv.Unquote(text); err == nil {
			return unquoted, true
		}
	}
	return text, true
}
