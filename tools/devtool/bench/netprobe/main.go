// SPDX-License-Identifier: Apache-2.0

// Command netprobe measures TCP between two containers.
//
//	netprobe serve                  answers whoever connects, for ever
//	netprobe throughput ADDRESS     prints MiB/s of one stream to the server, over two seconds
//	netprobe latency ADDRESS        prints the median of one byte there and one back, in microseconds
//
// The first byte of a connection says what it is for.
package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"sort"
	"time"
)

const (
	port       = "5001"
	streaming  = 's'
	answering  = 'a'
	blockBytes = 128 << 10
	duration   = 2 * time.Second
	questions  = 300
	patience   = 60 * time.Second
)

func main() {
	var result float64
	var err error
	switch {
	case len(os.Args) == 2 && os.Args[1] == "serve":
		err = serve()
	case len(os.Args) == 3 && os.Args[1] == "throughput":
		result, err = throughput(os.Args[2])
	case len(os.Args) == 3 && os.Args[1] == "latency":
		result, err = latency(os.Args[2])
	default:
		err = fmt.Errorf("expected serve, throughput ADDRESS or latency ADDRESS, got %q", os.Args[1:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "netprobe:", err)
		os.Exit(1)
	}
	fmt.Println(result)
}

func serve() error {
	listener, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return err
	}
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		go answer(connection)
	}
}

// answer serves one connection. What fails is the client's to report, who sees it end.
func answer(connection net.Conn) {
	defer connection.Close()
	first := make([]byte, 1)
	if _, err := io.ReadFull(connection, first); err != nil {
		return
	}
	block := make([]byte, blockBytes)
	switch first[0] {
	case answering:
		io.CopyBuffer(struct{ io.Writer }{connection}, struct{ io.Reader }{connection}, block)
	case streaming:
		var total uint64
		for {
			count, err := connection.Read(block)
			total += uint64(count)
			if err != nil {
				break
			}
		}
		binary.Write(connection, binary.BigEndian, total)
	}
}

func dial(address string, purpose byte) (*net.TCPConn, error) {
	connection, err := net.DialTimeout("tcp", net.JoinHostPort(address, port), patience)
	if err != nil {
		return nil, err
	}
	if err := connection.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	_, err = connection.Write([]byte{purpose})
	return connection.(*net.TCPConn), err
}

// throughput counts what has arrived, as the server says, until it says so.
func throughput(address string) (float64, error) {
	connection, err := dial(address, streaming)
	if err != nil {
		return 0, err
	}
	defer connection.Close()
	block := make([]byte, blockBytes)
	began := time.Now()
	for time.Since(began) < duration {
		if _, err := connection.Write(block); err != nil {
			return 0, err
		}
	}
	if err := connection.CloseWrite(); err != nil {
		return 0, err
	}
	var arrived uint64
	if err := binary.Read(connection, binary.BigEndian, &arrived); err != nil {
		return 0, err
	}
	return float64(arrived) / (1 << 20) / time.Since(began).Seconds(), nil
}

func latency(address string) (float64, error) {
	connection, err := dial(address, answering)
	if err != nil {
		return 0, err
	}
	defer connection.Close()
	one := make([]byte, 1)
	took := make([]float64, questions)
	for number := range took {
		began := time.Now()
		if _, err := connection.Write(one); err != nil {
			return 0, err
		}
		if _, err := io.ReadFull(connection, one); err != nil {
			return 0, err
		}
		took[number] = float64(time.Since(began).Nanoseconds()) / 1000
	}
	sort.Float64s(took)
	return took[questions/2], nil
}
