package mongodb

import "context"

// ParseQuery reads a filter and returns how many conditions it has.
func ParseQuery(text string) (int, error) {
	query, err := parseQuery(text)
	return len(query), err
}

// Connections returns how many clients are kept.
func (c *Clients) Connections() int { return c.connections.Len() }

// Explain returns what a measurement says that failed so, after looks at the server that came to these.
func Explain(err error, looks ...error) error {
	made := newConnection(settings{})
	for _, failure := range looks {
		made.looked(failure)
	}
	return made.explain(context.Background(), err)
}
