package bus

// queue has the requests that wait to be committed. Each owner has a line of its
// own, and the owners take turns, so that nobody waits for all requests of an
// owner who has many. The caller of its methods has the committer's lock.
type queue struct {
	lines   map[string]*line
	turns   []*line // in the order of their turns; none is empty
	waiting int64   // bytes
	spare   []*line // empty ones to use again: as many as were in use at once
}

// line has the waiting requests of one owner: first come, first served.
type line struct {
	owner    string
	requests []*request
	head     int // index of the first request; those before it have been taken
	bytes    int64
}

// put adds a request, unless there is no room for it among most bytes. Apart from
// a first request, an owner has no more than it leaves to others: one alone has at
// most half, and two have a third each. Requests without an owner may use all.
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

// begin makes a line. Its turn comes after all others.
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

// next gives the request whose turn it is, nil if none waits.
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

// pop removes the request that next gave. The next turn of its owner comes after
// all others.
func (q *queue) pop() {
	l := q.turns[0]
	q.less(l, l.requests[l.head])
	if !q.drop(l) && len(q.turns) > 1 {
		copy(q.turns, q.turns[1:])
		q.turns[len(q.turns)-1] = l
	}
}

// withdraw gives back the room of a request. next will pass over it.
func (q *queue) withdraw(r *request) {
	r.withdrawn = true
	q.less(q.lines[r.owner], r)
}

func (q *queue) less(l *line, r *request) {
	l.bytes -= int64(r.bytes)
	q.waiting -= int64(r.bytes)
}

// drop removes the first request of the line whose turn it is, and the line if
// that was its last one.
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
