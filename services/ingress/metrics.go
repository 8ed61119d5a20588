package ingress

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// observer is told of each commit.
type observer = func(messages int, took time.Duration)

// commitMetrics are what the committers did, by the family of their stream.
type commitMetrics struct {
	messages, seconds *prometheus.HistogramVec
}

func newCommitMetrics(to prometheus.Registerer) commitMetrics {
	histogram := func(name, help string, buckets []float64) *prometheus.HistogramVec {
		return promauto.With(to).NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "trunkline", Subsystem: "ingress", Name: name, Help: help, Buckets: buckets,
		}, []string{"stream"})
	}
	return commitMetrics{
		messages: histogram("commit_messages", "Messages stored by one commit.", prometheus.ExponentialBuckets(1, 2, 11)),
		seconds:  histogram("commit_seconds", "How long a commit took.", prometheus.ExponentialBuckets(0.0001, 2, 16)),
	}
}

func (m commitMetrics) of(stream string) observer {
	messages, seconds := m.messages.WithLabelValues(stream), m.seconds.WithLabelValues(stream)
	return func(n int, took time.Duration) {
		messages.Observe(float64(n))
		seconds.Observe(took.Seconds())
	}
}
