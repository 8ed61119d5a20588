package bus

// queue is what waits to be committed: of each owner in a line of its own, and
// the owners take turns. Who puts much in it waits for others, and they do not
// wait for all of it. The caller of its methods holds the committer's lock.
type queue struct {
	lines   map[string]*line
	turns   []*line // in the order in which they come next; none is empty
	waiting int64   // bytes
	spare   []*line // empty ones, for who comes next: as many as there were at once
}

// line is what one owner has waiting, first come, first served.
type line struct {
	owner    string
	requests []*request
	head     int // of requests: what is before it has gone
	bytes    int64
}

// put adds a request, unless there is no room for it among most bytes. Beyond
// its first, an owner has no more than it leaves to others: one alone has half,
// of two each has a third. What has no owner has no such share.
func (q *queue) put(r *request, most int64) bool {
	size := int64(r.bytes)
	free := most - q.waiting - size
	if q.waiting > 0 && free < 0 {
		return false
	}
	l := q.lines[r.owner]
	if l == nil {
		l = q.begin(r.owner)
	} else if r.owner != "" && l.bytes > 0 && l.bytes+size > free {
		return false
	}
	if l.head > 0 && len(l.requests) == cap(l.requests) {
		n := copy(l.requests, l.requests[l.head:])
		clear(l.requests[n:])
		l.requests, l.head = l.requests[:n], 0
	}
	l.requests = append(l.requests, r)
	l.bytes += size
	q.waiting += size
	return true
}

// begin makes a line, which has the last turn.
func (q *queue) begin(owner string) *line {
	var l *line
	if n := len(q.spare) - 1; n >= 0 {
		l, q.spare = q.spare[n], q.spare[:n]
	} else {
		l = &line{}
	}
	l.owner = owner
	if q.lines == nil {
		q.lines = map[string]*line{}
	}
	q.lines[owner] = l
	q.turns = append(q.turns, l)
	return l
}

// next is the request that comes next, or none.
func (q *queue) next() *request {
	for len(q.turns) > 0 {
		l := q.turns[0]
		if r := l.requests[l.head]; !r.withdrawn {
			return r
		}
		q.drop(l)
	}
	return nil
}

// pop removes what next gave. Its owner's next turn is the last.
func (q *queue) pop() {
	l := q.turns[0]
	q.less(l, l.requests[l.head])
	if !q.drop(l) && len(q.turns) > 1 {
		copy(q.turns, q.turns[1:])
		q.turns[len(q.turns)-1] = l
	}
}

// withdraw makes next pass over a request, which has its room no more.
func (q *queue) withdraw(r *request) {
	r.withdrawn = true
	q.less(q.lines[r.owner], r)
}

func (q *queue) less(l *line, r *request) {
	l.bytes -= int64(r.bytes)
	q.waiting -= int64(r.bytes)
}

// drop removes the first request of the line whose turn it is, and an empty
// line.
func (q *queue) drop(l *line) (last bool) {
	l.requests[l.head] = nil
	if l.head++; l.head < len(l.requests) {
		return false
	}
	delete(q.lines, l.owner)
	n := copy(q.turns, q.turns[1:])
	q.turns[n] = nil
	q.turns = q.turns[:n]
	*l = line{requests: l.requests[:0]}
	q.spare = append(q.spare, l)
	return true
}
