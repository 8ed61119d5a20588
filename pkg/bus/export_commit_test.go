package bus

// Remembers counts the attempts that a committer that has stopped still knows of.
func (c *Committer) Remembers() int { return len(c.group.sent) }
