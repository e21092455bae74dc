import ij.ImagePlus;
import ij.io.Opener;
import ij.measure.Calibration;
import java.util.ArrayList;
import java.util.List;

/** Prints what ImageJ makes of a TIFF: sizes, calibration, the last pixel of each slice, its info. */
public class ReadWithImageJ {
    public static void main(String[] paths) {
        ImagePlus image = new Opener().openImage(paths[0]);
        Calibration calibration = image.getCalibration();
        List<String> last = new ArrayList<>();
        for (int k = 1; k <= image.getStackSize(); k++) {
            last.add("" + image.getStack().getProcessor(k).getf(image.getWidth() - 1, image.getHeight() - 1));
        }
        System.out.println(image.getNChannels() + " " + image.getNSlices() + " " + image.getNFrames());
        System.out.println(image.getWidth() + " " + image.getHeight() + " " + image.getBitDepth());
        System.out.println(calibration.pixelWidth + " " + calibration.pixelHeight + " "
            + calibration.pixelDepth + " " + calibration.getUnit() + " " + calibration.frameInterval);
        System.out.println(String.join(" ", last));
        System.out.println(image.getInfoProperty());
    }
}
