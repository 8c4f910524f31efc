// Spheres in the order of a sunflower's seeds, around one of glass, in the last light of a day.
// Self-contained: no include file, no random source, so every machine renders the same pixels.
#version 3.7;

global_settings {
  assumed_gamma 1.0
  max_trace_level 9
}

#declare Golden = radians(137.50776);
#declare Seeds = 190;

camera {
  location <0, 3.0, -11.5>
  look_at <0, 1.62, 0>
  right x * image_width / image_height
  angle 44
}

// A low sun as a small area light: its shadows are soft.
light_source {
  <-60, 34, -22> * 5
  color rgb <1.35, 1.02, 0.70> * 1.25
  area_light <26, 0, 0>, <0, 26, 0>, 7, 7
  adaptive 1
  circular
  orient
}

// The sky's blue from the other side, without shadows.
light_source {
  <40, 60, -50>
  color rgb <0.16, 0.22, 0.34>
  shadowless
}

sky_sphere {
  pigment {
    gradient y
    color_map {
      [0.00 color rgb <0.98, 0.62, 0.36>]
      [0.05 color rgb <0.95, 0.54, 0.38>]
      [0.14 color rgb <0.62, 0.42, 0.52>]
      [0.30 color rgb <0.24, 0.28, 0.52>]
      [0.55 color rgb <0.10, 0.16, 0.38>]
      [1.00 color rgb <0.03, 0.07, 0.20>]
    }
  }
  pigment {
    bozo
    turbulence 0.75
    octaves 6
    omega 0.55
    lambda 2.4
    color_map {
      [0.00 color rgbt <1, 1, 1, 1>]
      [0.52 color rgbt <1, 1, 1, 1>]
      [0.68 color rgbt <1.0, 0.74, 0.58, 0.55>]
      [1.00 color rgbt <1.0, 0.86, 0.74, 0.25>]
    }
    scale <0.42, 0.085, 0.42>
  }
}

// Haze takes the far end of the ground into the sky.
fog {
  distance 55
  color rgbt <0.98, 0.62, 0.36, 0.05>
  fog_type 2
  fog_offset 0
  fog_alt 1.1
}

// Polished stone, light and dark.
plane {
  y, 0
  texture {
    checker
    texture {
      pigment { color rgb <0.80, 0.76, 0.70> }
      finish { ambient 0.02 diffuse 0.72 specular 0.25 roughness 0.02 reflection { 0.06, 0.32 fresnel on } conserve_energy }
    }
    texture {
      pigment { color rgb <0.055, 0.06, 0.085> }
      finish { ambient 0.02 diffuse 0.70 specular 0.35 roughness 0.01 reflection { 0.10, 0.42 fresnel on } conserve_energy }
    }
    scale 1.15
    rotate 31 * y
  }
  interior { ior 1.5 }
}

// From a position on the colour wheel to a colour, soft rather than shrill.
#macro Hue(H)
  <0.52 + 0.42 * cos(2 * pi * (H + 0.02)), 0.40 + 0.30 * cos(2 * pi * (H - 0.30)), 0.42 + 0.36 * cos(2 * pi * (H - 0.56))>
#end

#macro Glass(Tint)
  texture {
    pigment { color rgbt <1, 1, 1, 0.97> }
    finish { ambient 0 diffuse 0.02 specular 0.9 roughness 0.0008 reflection { 0.02, 1.0 fresnel on } conserve_energy }
  }
  interior { ior 1.52 fade_distance 2.4 fade_power 1001 fade_color Tint }
#end

// The seeds: each turns by the golden angle and moves out by a root, so that they fill the plane
// evenly; every eighth is of glass, every fifth of metal, the others of lacquer.
#for (I, 9, Seeds)
  #local Far = 0.45 * sqrt(I);
  #local R = 0.115 + 0.017 * Far + 0.05 * pow(sin(I * 0.61), 2);
  #local Where = <Far * cos(I * Golden), R, Far * sin(I * Golden)>;
  #local Paint = Hue(I / Seeds * 0.8 + 0.02);
  sphere {
    Where, R
    #if (mod(I, 8) = 0)
      Glass(rgb Paint * 0.6 + 0.4)
    #else
      #if (mod(I, 5) = 0)
        texture {
          pigment { color rgb Paint * 0.55 + <0.45, 0.36, 0.22> }
          finish { ambient 0 diffuse 0.28 specular 0.9 roughness 0.008 metallic reflection { 0.55 metallic } }
        }
      #else
        texture {
          pigment { color rgb Paint }
          finish { ambient 0.015 diffuse 0.78 specular 0.75 roughness 0.004 reflection { 0.02, 0.55 fresnel on } conserve_energy }
        }
        interior { ior 1.5 }
      #end
    #end
  }
#end

// The large one in the middle floats a little, with a small golden one inside.
sphere {
  <0, 1.62, 0>, 1.45
  Glass(rgb <0.86, 0.95, 0.97>)
}
sphere {
  <0, 1.42, 0>, 0.46
  texture {
    pigment { color rgb <0.98, 0.70, 0.30> }
    finish { ambient 0.02 diffuse 0.35 specular 1 roughness 0.006 metallic reflection { 0.6 metallic } }
  }
}

// A ring of polished metal around it.
torus {
  2.12, 0.06
  rotate <20, 0, -11>
  translate 1.62 * y
  texture {
    pigment { color rgb <0.93, 0.80, 0.60> }
    finish { ambient 0 diffuse 0.25 specular 1 roughness 0.004 metallic reflection { 0.7 metallic } }
  }
}
