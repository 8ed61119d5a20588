package bus

import "runtime"

// AwaitWaiting returns once n requests wait.
func (c *Committer) AwaitWaiting(n int) {
	for {
		c.mu.Lock()
		waiting := c.queue.count()
		c.mu.Unlock()
		if waiting >= n {
			return
		}
		runtime.Gosched()
	}
}

// count is how many requests wait, withdrawn ones too.
func (q *queue) count() (n int) {
	for _, l := range q.turns {
		n += len(l.requests) - l.head
	}
	return n
}
