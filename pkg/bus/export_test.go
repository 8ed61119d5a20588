package bus

import "runtime"

// AwaitWaiting returns once n requests wait.
func (c *Committer) AwaitWaiting(n int) {
	for {
		c.mu.Lock()
		waiting := len(c.queue)
		c.mu.Unlock()
		if waiting >= n {
			return
		}
		runtime.Gosched()
	}
}
