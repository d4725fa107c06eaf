import java.util.Map;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Sends COUNT messages "PARTITION:n" in one batch, by Java's client: SERVERS TOPIC PARTITION CODEC COUNT. */
public final class Produce {
    public static void main(String[] given) throws Exception {
        Map<String, Object> settings =
                Map.of("bootstrap.servers", given[0], "compression.type", given[3], "linger.ms", "2000");
        int partition = Integer.parseInt(given[2]);
        ByteArraySerializer bytes = new ByteArraySerializer();
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(settings, bytes, bytes)) {
            for (int n = 0; n < Integer.parseInt(given[4]); n++) {
                byte[] value = (partition + ":" + n).getBytes();
                producer.send(new ProducerRecord<>(given[1], partition, null, value));
            }
        }
    }
}
