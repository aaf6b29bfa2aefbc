package nsq

import "encoding/json"

// Depth reads what an nsqd answers.
func Depth(content []byte, topic, channel string) (depth int64, complete bool) {
	var answer statsAnswer
	if json.Unmarshal(content, &answer) != nil || !answer.complete() {
		return 0, false
	}
	return answer.depth(topic, channel), true
}

// Connections returns how many clients are kept.
func (c *Clients) Connections() int { return c.clients.Len() }
